"""Imports go one way through the program, along the data's way."""

from __future__ import annotations

import ast

import pytest

from tests.support.sources import Source, package_sources, source

MAY_IMPORT = {
    "": {""},
    "config": {"", "config"},
    "journal": {"", "config", "journal"},
    "watch": {"", "config", "journal", "watch"},
    "ship": {"", "config", "journal", "ship"},
    "control": {"", "config", "journal", "watch", "ship", "control"},
    # status tells what supervisord says, so observe looks down on control, never the reverse.
    "observe": {"", "config", "journal", "watch", "ship", "control", "observe"},
    "cli": {"", "config", "journal", "watch", "ship", "control", "observe", "cli"},
}


def imported_parts(module: Source) -> set[str]:
    return {
        _part(name)
        for node in ast.walk(module.tree)
        for name in _imported_modules(node)
        if name.split(".")[0] == "shardsync"
    }


def _imported_modules(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module:
        # `from shardsync import watch` names the part among what is imported.
        return [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return []


def _part(module: str) -> str:
    names = module.split(".")
    return names[1] if len(names) > 1 and names[1] in MAY_IMPORT else ""


def uncommented_inner_imports(module: Source) -> list[int]:
    """Line numbers of imports inside functions with no comment on or right above the line."""
    functions = (
        node
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    inner = {
        node.lineno
        for function in functions
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    return sorted(
        number
        for number in inner
        if "#" not in module.lines[number - 1]
        and not module.lines[number - 2].lstrip().startswith("#")
    )


@pytest.mark.parametrize("module", package_sources(), ids=lambda module: module.name)
def test_a_module_imports_only_what_lies_before_it(module: Source) -> None:
    """No module imports a part that lies after it on the data's way."""
    assert imported_parts(module) - MAY_IMPORT[module.part] == set()


@pytest.mark.parametrize("module", package_sources(), ids=lambda module: module.name)
def test_an_import_inside_a_function_says_why(module: Source) -> None:
    """An import inside a function carries a comment with its reason."""
    assert uncommented_inner_imports(module) == []


def test_relative_imports_are_not_used() -> None:
    """Imports are absolute, so the order above can be read off them."""
    relative = [
        module.name
        for module in package_sources()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert relative == []


def test_the_rule_sees_each_form_of_import() -> None:
    """The check itself finds parts however they are imported."""
    text = (
        "import shardsync.watch.slot\nfrom shardsync import ship\nfrom shardsync.cli.main import x"
    )
    assert imported_parts(source("journal/x.py", text)) >= {"watch", "ship", "cli"}


def test_the_rule_sees_an_inner_import() -> None:
    """The check itself finds an import inside a function, and accepts a commented one."""
    text = "def f():\n    import a\n    import b  # 150 ms\n    # heavy\n    import c\n"
    assert uncommented_inner_imports(source("x.py", text)) == [2]
