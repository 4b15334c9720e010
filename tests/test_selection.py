"""What a run of the default suite does not read would not have run, and parts are together the whole."""

from pathlib import PurePath

import dev
import pytest

from tests import selection

IMPORTS = "import pytest\n\n"
MARK = "pytest.mark.slow"
SLOW = f"@{MARK}\ndef test_a(): ...\n"

NOTHING_RUNS = {
    "a mark of the module": "pytestmark = pytest.mark.service  # a server\ndef test_a(): ...",
    "one of its marks": "pytestmark = [\n    pytest.mark.usefixtures('a'),\n    pytest.mark.torch,\n]",
    "every test is marked": SLOW + "@pytest.mark.parametrize('a', [1])\n@pytest.mark.torch\nasync def test_b(a): ...",
    "a class is marked": "@pytest.mark.slow\nclass TestA:\n    def test_a(self): ...",
    "helpers beside them": "LIMIT: int = 3\n\nclass Case:\n    number = 1\n\ndef helper(): ...\n\n" + SLOW,
}
SOMETHING_RUNS = {
    "no mark": "def test_a(): ...",
    "a mark that nobody leaves out": "pytestmark = pytest.mark.usefixtures('slow')\ndef test_a(): ...",
    "a text that looks like one": "'''\npytestmark = pytest.mark.slow\n'''\ndef test_a(): ...",
    "one test is not marked": SLOW + "# mark.slow\ndef test_b(): ...",
    "one case is not marked": f"@pytest.mark.parametrize('a', [1, pytest.param(2, marks={MARK})])\ndef test_a(a): ...",
    "one method is not marked": f"class TestA:\n    @{MARK}\n    def test_a(self): ...\n    def testb(self): ...",
    "a machine of Hypothesis": SLOW + "TestMachine = Machine.TestCase",
    "a case of unittest": SLOW + "class Sums(unittest.TestCase):\n    def testa(self): ...",
    "a test of another module": SLOW + "from tests.other import test_b",
    "tests of another module": SLOW + "from tests.other import *",
    "a test on condition": SLOW + "if True:\n    # mark.slow\n    def test_b(): ...",
}


@pytest.mark.parametrize("source", NOTHING_RUNS.values(), ids=NOTHING_RUNS)
def test_a_module_without_a_test_to_run_is_not_read(source: str) -> None:
    assert selection.runs_nothing(IMPORTS + source, selection.DEFAULT)


@pytest.mark.parametrize("source", SOMETHING_RUNS.values(), ids=SOMETHING_RUNS)
def test_a_module_in_which_a_test_may_run_is_read(source: str) -> None:
    assert not selection.runs_nothing(IMPORTS + source, selection.DEFAULT)


@pytest.mark.parametrize("expression", ["", "slow", "not slow", "not slow and not service", "slow or not service"])
def test_with_another_expression_every_module_is_read(expression: str) -> None:
    assert not any(selection.runs_nothing(IMPORTS + source, expression) for source in NOTHING_RUNS.values())


def test_the_expression_is_that_of_the_default_suite() -> None:
    assert dev.FAST == selection.DEFAULT


def test_every_file_is_in_one_part_and_parts_are_about_equally_large() -> None:
    files = [PurePath(f"tests/room/test_{number}.py") for number in range(300)]
    parts = [{file for file in files if selection.is_in_part(file, part, 3)} for part in (1, 2, 3)]
    assert sum(map(len, parts)) == len(files)
    assert set.union(*parts) == set(files)
    assert min(map(len, parts)) > 80
