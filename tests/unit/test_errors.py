"""The class tree of errors: exit codes and hints are part of the outside contract."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

import shardsync
from shardsync.errors import ShardsyncError

CONTRACT = {1, 2, 3, 10, 11, 12, 13, 14, 15, 16}


def error_classes() -> list[type[ShardsyncError]]:
    """Every error class of the package, those in modules of their own included."""
    for module in pkgutil.walk_packages(shardsync.__path__, "shardsync."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found: list[type[ShardsyncError]] = [ShardsyncError]
    for cls in found:
        found.extend(cls.__subclasses__())
    return [cls for cls in found if cls.__module__.startswith("shardsync.")]


def test_an_exit_code_belongs_to_one_class() -> None:
    """Two classes never claim one exit code; a subclass may inherit its parent's."""
    owners = [cls.__dict__["exit_code"] for cls in error_classes() if "exit_code" in cls.__dict__]
    assert sorted(owners) == sorted(set(owners))


def test_the_exit_codes_are_those_of_the_contract() -> None:
    """No class invents an exit code that the contract does not have, and none is missing."""
    assert {cls.exit_code for cls in error_classes()} == CONTRACT


@pytest.mark.parametrize("cls", error_classes(), ids=lambda cls: cls.__name__)
def test_every_error_says_what_to_do(cls: type[ShardsyncError]) -> None:
    """Each error has a hint, and a docstring that says when it is met."""
    assert cls.hint
    assert cls.__doc__


def test_an_error_may_carry_a_closer_hint() -> None:
    """A remedy given with the error wins over the class's hint."""
    assert ShardsyncError("x", hint="turn it off").remedy == "turn it off"
