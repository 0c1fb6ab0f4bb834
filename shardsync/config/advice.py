"""Warnings: what is accepted, and yet worth a word to the operator."""

from __future__ import annotations

import os
from collections.abc import Iterator

from shardsync.config.problems import Problem
from shardsync.config.settings import Settings, TargetKind


def warnings(settings: Settings) -> list[Problem]:
    """What is accepted, and yet worth a word to the operator."""
    return [
        *_without_nodes(settings),
        *_not_yet(settings),
        *_unused(settings),
        *_exposed(settings),
        *_missing_parents(settings),
        *_rule_like_patterns(settings),
    ]


def _warning(settings: Settings, key: str, message: str, remedy: str, value: object) -> Problem:
    return Problem(file=settings.source, key=key, message=message, remedy=remedy, value=value)


def _without_nodes(settings: Settings) -> Iterator[Problem]:
    for tree in settings.trees:
        if not settings.nodes_of(tree.name):
            yield _warning(
                settings, "node", f"the Tree {tree.name} has no Nodes: it is watched, not sent",
                'add [[node]] with name = "web1" and target = "web1:/var/www/html"', None,
            )  # fmt: skip


def _not_yet(settings: Settings) -> Iterator[Problem]:
    message, remedy = "is accepted, but not acted on by this version", "nothing needs to be done"
    for callback in settings.callbacks:
        yield _warning(settings, f"callback.{callback.name}", message, remedy, None)


def _unused(settings: Settings) -> Iterator[Problem]:
    for node in settings.nodes:
        if node.ssh_options and node.target.kind is TargetKind.LOCAL:
            yield _warning(
                settings, f"node.{settings.called(node)}.ssh_options",
                "is not used: the target is not reached by ssh",
                "leave it out, or write a target like host:/path", list(node.ssh_options),
            )  # fmt: skip


def _exposed(settings: Settings) -> Iterator[Problem]:
    listen = settings.metrics_listen
    if listen and not (listen[0].startswith("127.") or listen[0] in {"::1", "localhost"}):
        yield _warning(
            settings, "metrics.listen", "other machines can read the metrics, without encryption",
            "let a firewall allow none but Prometheus, or listen on 127.0.0.1",
            f"{listen[0]}:{listen[1]}",
        )  # fmt: skip


def _missing_parents(settings: Settings) -> Iterator[Problem]:
    for node in settings.nodes:
        parent = os.path.dirname(node.target.path)
        if node.target.kind is TargetKind.LOCAL and not os.path.isdir(parent):
            yield _warning(
                settings, f"node.{settings.called(node)}.target",
                f"the Node cannot be made until {parent} exists", f"mkdir -p {parent}",
                str(node.target),
            )  # fmt: skip


def _rule_like_patterns(settings: Settings) -> Iterator[Problem]:
    for tree in settings.trees:
        for key, patterns in (("exclude", tree.exclude), ("include", tree.include)):
            for pattern in patterns:
                if pattern.startswith(("+ ", "- ")):
                    yield _warning(
                        settings, f"tree.{tree.name}.{key}",
                        "is a pattern, not one of rsync's filter rules",
                        f'to mean the name alone, write "{pattern[2:]}" into include or exclude',
                        pattern,
                    )  # fmt: skip
