"""What is done with harmless names can be harmful all the same."""

from pathlib import Path

import pytest

from palladion.scan.content import examine
from palladion.scan.look import Look
from palladion.scan.source import Held
from tests.scan.corpus.kept import kept
from tests.scan.corpus.run import accepted
from tests.scan.corpus.sample import Sample


def _rules(data: bytes) -> set[str]:
    look = Look(examine)
    examine(look, Held(data), "it")
    return {item.rule for item in look.findings}


def test_what_is_sound_is_accepted() -> None:
    assert _rules(b"\x80\x04cbuiltins\ndict\n)R.") == set()


@pytest.mark.parametrize(
    "data", [b"\x80\x04cbuiltins\ndict\n}b.", b"\x80\x04cbuiltins\ndict\n)R)R.", b"ctorch\nfloat32\n)R."]
)
def test_what_is_not_is_reported(data: bytes) -> None:
    assert "pickle-call" in _rules(data)


@pytest.mark.parametrize("sample", kept(), ids=lambda sample: sample.name)
def test_what_would_be_called_or_believed_while_it_loads_does_not_pass(tmp_path: Path, sample: Sample) -> None:
    assert accepted([sample], tmp_path) == []


@pytest.mark.parametrize(
    "data",
    [
        # called once with harmless arguments, and kept: from the memo, and from the top of the stack
        b"\x80\x04cbuiltins\ngetattr\n\x94cbuiltins\nstr\nVsplit\n\x86R0]h\x00a.",
        b"\x80\x04]cbuiltins\ngetattr\n2cbuiltins\nstr\nVsplit\n\x86R0a.",
    ],
)
def test_a_judged_name_is_judged_each_time(data: bytes) -> None:
    assert _rules(data) == {"pickle-global"}


def test_the_fields_of_a_dtype_stay_as_they_are() -> None:
    double = b"cnumpy\ndtype\nVf8\n\x89\x88\x87R"
    made = (
        b"\x80\x04cnumpy\ndtype\nVV8\n\x89\x88\x87R(K\x03V|\nNVa\n\x85}\x94Va\n"
        + double
        + b"K\x00\x86sK\x08K\x01K\x10tb"
    )
    assert _rules(made + b".") == set()
    assert _rules(made + b"0h\x00Va\n" + double + b"K\xc8\x86s.") == {"pickle-call"}


@pytest.mark.timeout(20)
def test_sizes_without_end_are_not_multiplied_to_the_end() -> None:
    sizes = b"".join(b"\x8a\xff" + b"\x7f" * 255 for _ in range(20_000))
    assert "pickle-call" in _rules(b"\x80\x04cnumpy\nndarray\n((" + sizes + b"ttR.")
