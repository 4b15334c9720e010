"""Which test files a run does not even read: those of which `-m` leaves out every test, and those of other parts.

Reading the tests takes a third as long as running the default suite, and much of it is for tests that do not run.
"""

import ast
import zlib
from collections.abc import Iterable
from pathlib import PurePath

DEFAULT = "not slow and not service and not torch"  # dev.py's FAST; of other expressions nothing is known here
LEFT_OUT = ("slow", "service", "torch")


def runs_nothing(source: str, expression: str) -> bool:
    """Whether `-m expression` leaves out every test of the module; False, too, where only its import would tell."""
    if expression != DEFAULT:
        return False
    marks = sum(source.count(f"mark.{mark}") for mark in LEFT_OUT)
    if "pytestmark" not in source and marks < source.count("def test_"):
        return False  # most modules: parsing all of them would take as long as importing them
    body = ast.parse(source).body
    if any(_is_marked(_marks(node)) for node in body):
        return True
    return bool(body) and all(_is_left_out(node) for node in body)


def is_in_part(file: PurePath, part: int, parts: int) -> bool:
    """Whether a file belongs to a part, from 1: its name alone decides, so that no edit moves it between two runs."""
    return zlib.crc32(file.as_posix().encode()) % parts == part - 1


def _marks(statement: ast.stmt) -> list[ast.expr]:
    """What a module's `pytestmark = …` names."""
    if not isinstance(statement, ast.Assign) or "pytestmark" not in map(ast.unparse, statement.targets):
        return []
    return statement.value.elts if isinstance(statement.value, ast.List) else [statement.value]


def _is_marked(marks: Iterable[ast.expr]) -> bool:
    names = [ast.unparse(mark.func if isinstance(mark, ast.Call) else mark) for mark in marks]
    return any(name == f"pytest.mark.{mark}" for name in names for mark in LEFT_OUT)


def _is_left_out(statement: ast.stmt) -> bool:
    """Whether pytest finds nothing to run in a statement of a module: marked tests, or what can hold no test."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
        return not statement.name.startswith("test") or _is_marked(statement.decorator_list)
    if isinstance(statement, ast.ClassDef):
        names = [statement.name, *map(ast.unparse, statement.bases)]  # of a TestCase every subclass is run
        return not any("Test" in name for name in names) or _is_marked(statement.decorator_list)
    if isinstance(statement, ast.Import | ast.ImportFrom):
        # a test of another module that is imported runs in this one, too
        return not any((name.asname or name.name).lower().startswith(("test", "*")) for name in statement.names)
    if isinstance(statement, ast.Assign | ast.AnnAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        return not any("test" in ast.unparse(target).lower() for target in targets)
    return isinstance(statement, ast.Expr)  # whatever else is rare, and an `if` may hold tests
