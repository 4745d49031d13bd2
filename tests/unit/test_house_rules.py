"""The house rules that no other tool checks: sizes, names of files, locks, and tests that could not fail."""

import ast
import functools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("gateway", "history", "training", "bench", "tests", "locks")
CODE = {".py", ".lua"}
FILE_LINES = 400
FUNCTION_LINES = 40
WITHOUT_MEANING = {"utils", "util", "helpers", "helper", "common", "manager", "base", "service", "misc"}


def code_files() -> list[Path]:
    return [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*")) if path.suffix in CODE]


@functools.cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """Everything in a file; several rules look at it."""
    return tuple(ast.walk(ast.parse(path.read_text())))


def functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in nodes(path) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    assert function.end_lineno is not None
    return function.end_lineno - function.lineno + 1


def always_true(node: ast.AST) -> bool:
    return isinstance(node, ast.Assert) and isinstance(node.test, ast.Constant) and bool(node.test.value)


def test_the_rules_see_the_code() -> None:
    """A wrong folder would make every other rule here pass."""
    found = {path.relative_to(ROOT).parts[0] for path in code_files()}
    assert {"gateway", "history", "training", "tests"} <= found


def test_no_file_is_longer_than_400_lines() -> None:
    """A file that has grown past one sitting is two things."""
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in code_files()}
    assert {name: lines for name, lines in lengths.items() if lines > FILE_LINES} == {}


def test_no_function_is_longer_than_40_lines() -> None:
    """A function does one level of work."""
    too_long = [
        f"{path.relative_to(ROOT)}:{function.lineno} {function.name}: {length(function)}"
        for path in code_files()
        if path.suffix == ".py"
        for function in functions(path)
        if length(function) > FUNCTION_LINES
    ]
    assert too_long == []


def test_no_file_or_folder_has_a_name_without_meaning() -> None:
    """What has no name has no place."""
    names = [path.relative_to(ROOT) for path in code_files()]
    assert [str(name) for name in names if WITHOUT_MEANING & {Path(part).stem for part in name.parts}] == []


def test_locks_name_no_address() -> None:
    """Where packages come from is the installing machine's business."""
    locks = sorted((ROOT / "locks").glob("*.txt"))
    assert [
        lock.name for lock in locks if re.search(r"https?://|--index-url|--find-links", lock.read_text())
    ] == []


@pytest.mark.parametrize("name", ["build.txt", "dev.txt", "gateway.txt", "model.txt", "worker.txt"])
def test_every_locked_package_has_a_hash(name: str) -> None:
    """An installation from a lock gets the bytes that were locked."""
    text = (ROOT / "locks" / name).read_text()
    packages = re.split(r"^(?=[\w.-]+==)", text, flags=re.MULTILINE)[1:]
    assert packages
    assert [package.split()[0] for package in packages if "--hash=sha256:" not in package] == []


def test_no_test_asserts_a_constant() -> None:
    """A test that cannot fail is a claim without proof."""
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in code_files()
        if path.suffix == ".py"
        for node in nodes(path)
        if isinstance(node, ast.Assert) and always_true(node)
    ]
    assert found == []
