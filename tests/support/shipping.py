"""For tests of the sync process: Nodes of each kind, requests, and a process that is killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path

from shardsync.config.settings import NodeSettings
from shardsync.journal.records import Answer, NodeKey, NodeRow
from shardsync.journal.requests import Request, RequestKind, RequestState, new_request_id, send
from shardsync.journal.state_writer import StateWriter
from tests.support.nodes import RsyncDaemon, Sshd, local_node
from tests.support.sync import Instance, Running, begun

KEY: NodeKey = ("main", "web1")


@contextlib.contextmanager
def node_of_kind(kind: str, workspace: Path) -> Iterator[tuple[NodeSettings, Path]]:
    """A Node `web1`, "local", "daemon" or "ssh", and the folder that it keeps its files in."""
    folder = workspace / "node"
    folder.mkdir()
    if kind == "local":
        yield local_node(folder), folder
    elif kind == "daemon":
        with RsyncDaemon(workspace=workspace, path=folder) as daemon:
            yield daemon.node(name="web1"), folder
    else:
        with Sshd(workspace=workspace) as sshd:
            yield sshd.node(folder, name="web1"), folder


def fill(folder: Path, files: Mapping[str, str]) -> None:
    """Write files, with the directories that they lie in."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def names_below(folder: Path) -> list[str]:
    """All paths below, sorted, relative to `folder`."""
    return sorted(
        os.path.relpath(os.path.join(parent, name), folder)
        for parent, folders, files in os.walk(folder)
        for name in (*folders, *files)
    )


def row_of(sync: Running, key: NodeKey = KEY) -> NodeRow:
    """What the sync process remembers of a Node."""
    return sync.state.read.nodes().get(key, NodeRow(tree=key[0], name=key[1]))


async def asked(sync: Running, kind: RequestKind, **fields: object) -> str:
    """Put a request into the spool; returns its id."""
    request = Request(id=new_request_id(), kind=kind, **fields)  # type: ignore[arg-type]  # by name
    send(sync.instance.state_dir.requests, request)
    return request.id


async def answered(sync: Running, request_id: str) -> Answer:
    """Wait for the end of a request."""

    def is_done() -> bool:
        answer = sync.state.read.answer(request_id)
        return answer is not None and answer.state is not RequestState.RUNNING

    await sync.until(is_done)
    answer = sync.state.read.answer(request_id)
    assert answer is not None
    return answer


async def ask(sync: Running, kind: RequestKind, **fields: object) -> Answer:
    """Put a request into the spool and wait for its end."""
    return await answered(sync, await asked(sync, kind, **fields))


def newest(instance: Instance) -> dict[str, int]:
    """What a flush of now waits for."""
    return {
        f"main-{number:02d}": journal.last_position
        for number, journal in enumerate(instance.journals)
    }


@contextlib.asynccontextmanager
async def killed_at_exit(
    instance: Instance,
    *,
    open_state: Callable[[Instance], StateWriter] | None = None,
) -> AsyncIterator[Running]:
    """A sync process that is cut off where it stands: no tick is finished, nothing is recorded."""
    sync, task = begun(instance, None if open_state is None else open_state(instance))
    try:
        yield sync
    finally:
        task.cancel()
        await asyncio.wait({task}, timeout=30)
