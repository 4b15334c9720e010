"""What a hostile file may cost is counted, and what is counted ends in a refusal."""

import time

import pytest

from palladion.scan.content import examine
from palladion.scan.look import Look, Searched
from palladion.scan.pickles.hidden import hidden_in
from palladion.scan.source import Held
from tests.scan.corpus.sample import raw, start, text


def _findings(data: bytes, where: str, look: Look | None = None) -> list[tuple[str, str]]:
    look = look or Look(examine)
    examine(look, Held(data), where)
    return [(item.rule, item.grade) for item in look.findings]


def test_digits_with_many_spaces_do_not_hold_a_scan() -> None:
    begun = time.process_time()
    assert hidden_in(Look(examine), "\n\n\n".join([" ".join(["6f"] * 15)] * 400)) is None
    assert time.process_time() - begun < 1  # it took 8 s, and twice as long for each further pair


@pytest.mark.parametrize("data", [text("import " * 30) + b".", raw(b"import " * 30) + b"."])
def test_text_that_may_be_a_program_is_searched_up_to_a_limit(data: bytes) -> None:
    assert _findings(start(4) + data, "it.pkl") == []
    assert _findings(start(4) + data, "it.pkl", Look(examine, searched=Searched(50))) == [("limit", "refused")]


@pytest.mark.parametrize("name", ["generate.py", "a.PYW", "x.pth", "x.zip/model.pyx", "run.sh"])
def test_a_program_by_its_name_is_none_to_accept(name: str) -> None:
    assert _findings(b"x = 1\n", name) == [("source-code", "suspicious")]
    assert _findings(b"x = 1\n", f"{name}.txt") == []


def test_a_class_path_that_names_a_function_of_the_system_is_refused() -> None:
    assert _findings(b"model:\n  class_path: subprocess.Popen\n", "lit.yaml") == [("remote-code", "refused")]
    assert _findings(b"model:\n  class_path: mine.Model\n", "lit.yaml") == []


def test_a_state_that_is_put_in_again_and_again_counts_each_time() -> None:
    state = b"}(" + b"".join(text(f"a{number}") + b"N" for number in range(1000)) + b"u\x94"
    data = start(4) + state + text("collections") + text("UserDict") + b"\x93)\x81" + b"h\x00b" * 100 + b"."
    assert _findings(data, "it.pkl", Look(examine, opcodes_left=20_000)) == []
    assert _findings(data, "it.pkl", Look(examine, opcodes_left=5_000)) == [("limit", "refused")]


def test_a_pipeline_of_a_module_of_the_system_is_refused() -> None:
    data = b'{"_diffusers_version": "0.30", "unet": ["os", "system"]}'
    assert _findings(data, "model_index.json") == [("remote-code", "refused")]
