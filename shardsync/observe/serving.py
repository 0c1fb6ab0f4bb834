"""The HTTP server of /metrics: few clients at a time, each for a short while, each heard briefly.

Whoever can reach the port may connect and say nothing, or say it a byte at a time, or
without end. Neither descriptors nor threads nor memory of the sync process may go to that.
"""

from __future__ import annotations

import contextlib
import io
import socket
import socketserver
import threading
from collections.abc import Callable
from typing import Any, cast
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from shardsync.clock import Clock

CLIENTS = 16
"""For one more, whoever has been connected longest is cut off."""
CLIENT_SECONDS = 10.0
REQUEST_BYTES = 64 * 1024
"""Of a request no more is read."""


class MetricsServer(socketserver.ThreadingMixIn, WSGIServer):
    """A thread for each client. By inheritance because socketserver asks for it.

    Raises OSError where the address cannot be had.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self, *, listen: tuple[str, int], application: Callable[..., Any], clock: Clock
    ) -> None:
        found = socket.getaddrinfo(*listen, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        self.address_family = found[0]
        self._clock = clock
        self._lock = threading.Lock()
        self._since: dict[socket.socket, float] = {}
        super().__init__((str(found[4][0]), listen[1]), _Handler)
        self.set_app(application)

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 (socketserver's signature)
        """Take a client, at the cost of the one that has been here longest."""
        with self._lock:
            if len(self._since) >= CLIENTS:
                self._cut(next(iter(self._since)))
            self._since[request] = self._clock.monotonic()
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:  # noqa: ANN401 (socketserver's signature)
        """Let go of a client."""
        with self._lock:
            self._since.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Cut off whoever has had his time; called twice a second."""
        until = self._clock.monotonic() - CLIENT_SECONDS
        with self._lock:
            for client, since in tuple(self._since.items()):
                if since <= until:
                    self._cut(client)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 (socketserver's signature)
        """A client that was cut off, or went: nothing to tell."""

    def _cut(self, client: socket.socket) -> None:
        """Have the thread of a client find its end at once. Under the lock."""
        del self._since[client]
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)


class _Handler(WSGIRequestHandler):
    """One request, of which a bounded part is read. By inheritance as above."""

    def setup(self) -> None:
        super().setup()
        self.rfile = cast("io.BufferedIOBase", _Bounded(self.rfile, REQUEST_BYTES))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (its signature)
        """Nothing: whoever asks could fill the log."""

    def get_stderr(self) -> Any:  # noqa: ANN401 (its signature)
        """Tracebacks of answers that nobody takes go nowhere, for the same reason."""
        return io.StringIO()


class _Bounded:
    """Reads lines until so many bytes were read, then finds the end."""

    def __init__(self, stream: io.BufferedIOBase, most: int) -> None:
        self._stream = stream
        self._left = most

    def readline(self, size: int = -1) -> bytes:
        """At most a line, or b""."""
        line = self._stream.readline(self._left if size < 0 else min(size, self._left))
        self._left -= len(line)
        return line

    def close(self) -> None:
        """Close the stream."""
        self._stream.close()
