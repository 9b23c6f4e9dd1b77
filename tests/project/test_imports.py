"""Who may import whom, read from the source: the rules that keep the core apart from the transports."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
CHAT = sorted((ROOT / "chat").rglob("*.py"))
TRANSPORTS = sorted((ROOT / "transports").rglob("*.py"))
PURE = {f"chat.{name}" for name in ("errors", "frame", "log", "loopguard", "presence", "room", "session", "text")}
IMPURE = {"asyncio", "os", "random", "secrets", "select", "socket", "sqlite3", "threading", "time"}
SEEN_BY_TRANSPORTS = {"chat.errors", "chat.link", "chat.transport"}
BY_NAME = {"__import__", "find_spec", "import_module", "run_module"}


def files(paths: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", paths, ids=lambda path: str(path.relative_to(ROOT)))


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_bytes(), str(path))


def imports(path: Path, *, for_types: bool = True) -> set[str]:
    """Every module that the file names in an import, at any depth; relative ones made absolute.

    Without ``for_types`` only those that are loaded when the program runs.
    """
    package = path.relative_to(ROOT).parent.parts
    found = set()
    for node in walk(parse(path), for_types=for_types):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else ()
            source = ".".join([*above, *([node.module] if node.module else [])])
            # `from chat import host` names a module only in its second half.
            names = (f"{source}.{alias.name}" for alias in node.names)
            found |= {name if is_ours(name) else source for name in names}
    return found


def walk(node: ast.AST, *, for_types: bool) -> Iterator[ast.AST]:
    yield node
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and not for_types:
        return
    for child in ast.iter_child_nodes(node):
        yield from walk(child, for_types=for_types)


def is_ours(module: str) -> bool:
    path = ROOT / module.replace(".", "/")
    return path.is_dir() or path.with_suffix(".py").is_file()


def tops(modules: set[str]) -> set[str]:
    return {module.partition(".")[0] for module in modules}


@files(CHAT)
def test_chat_never_imports_transports(path: Path) -> None:
    assert "transports" not in tops(imports(path))
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            assert not re.fullmatch(r"transports(\.\w+)+(:\w+)?", node.value), f"line {node.lineno}"
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in BY_NAME:
            named = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
            assert "transports" not in named, f"line {node.lineno}"


@files(TRANSPORTS)
def test_transports_see_the_contract_and_not_each_other(path: Path) -> None:
    ours = {module for module in imports(path) if tops({module}) & {"chat", "transports"}}
    assert ours <= SEEN_BY_TRANSPORTS


@files(CHAT)
def test_no_transport_is_a_special_case(path: Path) -> None:
    schemes = {path.stem for path in TRANSPORTS} | {"queue"}
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Compare):
            named = {
                one.value for one in ast.walk(node) if isinstance(one, ast.Constant) and isinstance(one.value, str)
            }
            assert not named & schemes, f"line {node.lineno}"


@pytest.mark.parametrize("module", sorted(PURE))
def test_pure_modules_take_time_and_chance_as_arguments(module: str) -> None:
    found = imports(ROOT / f"{module.replace('.', '/')}.py", for_types=False)
    assert not tops(found) & IMPURE
    assert {name for name in found if tops({name}) == {"chat"}} <= PURE


@files([path for path in CHAT + TRANSPORTS if path != ROOT / "chat/link.py"])
def test_readiness_is_asked_for_in_one_module(path: Path) -> None:
    named = {node.attr for node in ast.walk(parse(path)) if isinstance(node, ast.Attribute)}
    assert not named & {"add_reader", "add_writer"}


@files(CHAT + TRANSPORTS)
def test_what_is_imported_is_declared(path: Path) -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]
    libraries = {re.split(r"[<>=~! ;\[]", line)[0].replace("-", "_") for line in declared}
    assert tops(imports(path)) <= libraries | {"chat", "transports"} | sys.stdlib_module_names


def test_no_transport_hides_a_module_of_python() -> None:
    # Run as a script, a file puts its folder first on sys.path: beside transports/queue.py, `import queue`
    # in asyncio would find that one.
    assert not {path.stem for path in TRANSPORTS} & sys.stdlib_module_names
