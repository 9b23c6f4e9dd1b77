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
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
CHAT = sorted((ROOT / "chat").rglob("*.py"))
TRANSPORTS = sorted((ROOT / "transports").rglob("*.py"))
# What each folder of chat/ may see, besides itself and what is at the bottom for everybody.
MAY_SEE = {
    "core": set(),
    "transport": {"core"},
    "local": {"core", "transport"},
    "client": {"core", "transport", "local"},
    "host": {"core", "transport", "local", "client"},
    "ui": {"core", "transport", "local", "client"},
    "cli": {"core", "transport", "local", "client", "host", "ui"},
    "testing": {"core", "transport", "local", "client", "host"},
}
BOTTOM = {"i18n", "ndjson"}  # modules for every folder but core and transport; they see core only
# What core may load, besides itself: nothing that reads clocks, files, processes or chance.
PURE = {
    *("__future__", "bisect", "chat", "collections", "confusable_homoglyphs", "contextlib", "dataclasses", "difflib"),
    *("enum", "functools", "hashlib", "itertools", "math", "msgspec", "operator", "re", "struct", "sys", "typing"),
    *("unicodedata", "wcwidth"),
}
SEEN_BY_TRANSPORTS = {"chat.core.errors", "chat.transport.link", "chat.transport"}
# They load what no import names, or find what others have loaded. No reading of the source can catch a name that the
# program computes: getattr(importlib, some_call()), a text cut from another or read from a file, a second Python.
BY_NAME = {
    *("__import__", "eval", "exec", "exec_module", "find_spec", "import_module", "load_module", "modules"),
    *("resolve_name", "run_module", "run_path", "spec_from_file_location"),
}
MENTIONS = {  # texts that name a scheme and treat none differently
    "broken pipe": "what the system calls EPIPE",
    "pipe to process ": "a pipe of the system, to a program that the host started",
    "{text!r} is not an address; write NAME or NAME:PLACE, like tcp:127.0.0.1:7711": "an example for people",
}


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
            # `from chat.host import host` names a module only in its second half.
            names = (f"{source}.{alias.name}" for alias in node.names)
            found |= {name if is_ours(name) else source for name in names}
    return found


def walk(node: ast.AST, *, for_types: bool) -> Iterator[ast.AST]:
    yield node
    for_types_only = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and not for_types
    for child in node.orelse if for_types_only else ast.iter_child_nodes(node):  # type: ignore[attr-defined]
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


@files([path for path in CHAT if path.parent != ROOT / "chat/testing"])  # it is told by name what to test
def test_nothing_is_loaded_but_by_import(path: Path) -> None:
    for node in ast.walk(parse(path)):
        names = {node.attr} if isinstance(node, ast.Attribute) else {node.id} if isinstance(node, ast.Name) else set()
        names |= {node.name} if isinstance(node, ast.alias) else set()
        names |= {str(node.value)} if isinstance(node, ast.Constant) else set()  # for getattr, or a look into vars()
        assert not names & BY_NAME, f"line {node.lineno}"  # type: ignore[attr-defined]


@files(TRANSPORTS)
def test_transports_see_the_contract_and_not_each_other(path: Path) -> None:
    ours = {module for module in imports(path) if tops({module}) & {"chat", "transports"}}
    assert {module for module in ours if not f"{module}.".startswith("chat.transport.")} == set()


@files(CHAT)
def test_no_transport_is_a_special_case(path: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    schemes = "|".join(project["entry-points"]["chat.transports"])
    tree = parse(path)
    for_people = {
        id(text)
        for node in ast.walk(tree)
        for text in ([node.value] if isinstance(node, ast.Expr) else [])  # a docstring
        + ([node.value] if isinstance(node, ast.keyword) and node.arg in {"help", "epilog"} else [])
    }
    for node in ast.walk(tree):
        text = node.arg if isinstance(node, ast.keyword) else None if id(node) in for_people else text_of(node)
        assert text is None or text in MENTIONS or not re.search(rf"\b({schemes})\b", text), ast.unparse(node)


def text_of(node: ast.AST | None) -> str | None:
    """The text of a constant, or of constants put together by ``+``, an f-string or ``join``."""
    parts: list[ast.expr]
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.Constant(value=bytes(data)):
            return data.decode("latin-1")
        case ast.FormattedValue(value=value):
            return text_of(value)
        case ast.BinOp(op=ast.Add()):
            between, parts = "", [node.left, node.right]
        case ast.JoinedStr():
            between, parts = "", node.values
        case ast.Call(func=ast.Attribute(value=ast.Constant(value=str(between)), attr="join"), args=[arg]):
            parts = arg.elts if isinstance(arg, ast.List | ast.Tuple) else []
        case _:
            return None
    return between.join(text_of(part) or "" for part in parts)


def folder_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


@files([path for path in CHAT if path.parent != ROOT / "chat"])
def test_folders_are_layers_and_arrows_point_down(path: Path) -> None:
    folder = path.relative_to(ROOT / "chat").parts[0]
    seen = {folder_of(module) for module in imports(path) if tops({module}) == {"chat"}} - {folder}
    bottom = set() if folder in {"core", "transport"} else BOTTOM
    assert seen <= MAY_SEE[folder] | bottom


@pytest.mark.parametrize("name", sorted(BOTTOM))
def test_what_is_at_the_bottom_sees_core_only(name: str) -> None:
    seen = {folder_of(module) for module in imports(ROOT / f"chat/{name}.py") if tops({module}) == {"chat"}}
    assert seen <= {"core"}


@files(sorted((ROOT / "chat/core").glob("*.py")))
def test_core_takes_time_and_chance_as_arguments(path: Path) -> None:
    assert tops(imports(path, for_types=False)) <= PURE


def test_transport_sees_the_errors_and_nothing_else_of_core() -> None:
    for path in (ROOT / "chat/transport").glob("*.py"):
        seen = {module for module in imports(path) if module.startswith("chat.core")}
        assert seen <= {"chat.core.errors"}, path


@files([path for path in CHAT + TRANSPORTS if path != ROOT / "chat/transport/link.py"])
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


@pytest.mark.parametrize(
    ("rule", "source"),
    [
        (test_nothing_is_loaded_but_by_import, "from importlib import import_module as load"),
        (test_nothing_is_loaded_but_by_import, "import importlib as i; f = i.import_module"),
        (test_nothing_is_loaded_but_by_import, "x = sys.modules['chat.ui.linear']"),
        (test_nothing_is_loaded_but_by_import, "from sys import modules as loaded"),
        (test_nothing_is_loaded_but_by_import, "import sys as s; x = s.modules"),
        (test_nothing_is_loaded_but_by_import, "x = getattr(importlib, 'import_module')"),
        (test_nothing_is_loaded_but_by_import, "from pkgutil import resolve_name"),
        (test_nothing_is_loaded_but_by_import, "exec('import ' + name)"),
        (test_no_transport_is_a_special_case, "x = '--transport=queue'"),
        (test_no_transport_is_a_special_case, "x = 'tcp,queue'"),
        (test_no_transport_is_a_special_case, "x = b'tcp'"),
        (test_no_transport_is_a_special_case, "x = dict(tcp=1)"),
        (test_no_transport_is_a_special_case, "x = 'tc' + 'p'"),
        (test_no_transport_is_a_special_case, "x = f'{\"tc\"}p:{port}'"),
        (test_no_transport_is_a_special_case, "x = ''.join(['qu', 'eue'])"),
        (test_core_takes_time_and_chance_as_arguments, "from datetime import datetime"),
        (test_core_takes_time_and_chance_as_arguments, "import subprocess"),
        (test_core_takes_time_and_chance_as_arguments, "if TYPE_CHECKING: pass\nelse: import time"),
    ],
)
def test_the_rules_are_not_easily_evaded(
    rule: Callable[[Path], None], source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "parse", lambda _path: ast.parse(source))
    with pytest.raises(AssertionError):
        rule(ROOT / "chat/core/evader.py")
