"""Where the `shardsync` command begins: Ctrl-C while the rest is being imported ends it silently.

Imports nothing of weight itself, so that there is hardly a moment before that.
"""

from __future__ import annotations

import signal
import sys


def main() -> None:
    """Entry point of the `shardsync` command."""
    # Ignored in a shell's background job: then it stays so.
    is_ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_ours:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    # Imported here: 0.2 s in which Python would answer Ctrl-C with a traceback.
    from shardsync.cli.main import run  # noqa: PLC0415 (see above)

    if is_ours:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
