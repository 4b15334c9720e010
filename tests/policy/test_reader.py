"""The policy file: errors that say where, and limits."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec
import pytest
from msgspec import Meta

from palladion.errors import FormatError, PolicyError
from palladion.policy import POLICY_BYTES_MAX, Policy, load_policy, parse_policy
from palladion.policy.reader import FORMS
from palladion.policy.template import section_types


def _parse(text: str) -> Policy:
    return parse_policy(text.encode(), "palladion.toml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[ledger]\norigin = 3\n", "palladion.toml:2: ledger.origin: expected str, got 3"),
        ("\n[scan]\n\nfile_bytes_max = -4\n", "palladion.toml:4: scan.file_bytes_max: expected int >= 1, got -4"),
        ("scan.file_bytes_max = 'x'", "palladion.toml:1: scan.file_bytes_max: expected int, got 'x'"),
        ("# c\n[keys]\nescrow = ['a', 3]\n", "palladion.toml:3: keys.escrow: expected str, got ['a', 3]"),
        ("ledger = 3", "palladion.toml:1: ledger: expected object, got 3"),
        ("[ledgr]\na = 1", "palladion.toml:1: ledgr: unknown section"),
        ("[ledger]\n\norigim = ''", "palladion.toml:3: ledger.origim: unknown setting"),
        (
            "[[route]]\nmodel = 'a'\n\n[[route]]\nmodel = 'b'\nmode = 'off'\n",
            "palladion.toml:6: route.mode: expected observe or enforce, got 'off'",
        ),
        (
            "[[route]]\nmodel = 'a'\n[[route]]\nmode = 'observe'\n",
            "palladion.toml:3: route: it has no model, which is required",
        ),
        (
            "[[route]]\nmodel = 'a'\nengine = 'ollama'\n",
            "palladion.toml:3: route.engine: expected '', vllm, sglang or tensorrt-llm, got 'ollama'",
        ),
        (
            "[[route]]\nmodel = 'a'\nupstream = 'localhost:8000'\n",
            f"palladion.toml:3: route.upstream: expected {FORMS['route.upstream']}, got 'localhost:8000'",
        ),
        (
            "[[route]]\nmodel = 'a'\ninputs = [{name = 'x', type = 'int8', path = 'instances'}]\n",
            "palladion.toml:3: route.inputs.path: expected a path such as $.instances[*], got 'instances'",
        ),
        ("[watch]\nalpha_watched = 2", "palladion.toml:2: watch.alpha_watched: expected float <= 0.5, got 2"),
    ],
)
def test_a_wrong_setting_is_named_with_its_line_and_what_was_got(text: str, message: str) -> None:
    with pytest.raises(PolicyError) as caught:
        _parse(text)
    assert caught.value.message == message


def test_a_misspelt_name_gets_a_suggestion() -> None:
    with pytest.raises(PolicyError) as caught:
        _parse("[ledger]\norigim = ''")
    assert caught.value.hints == ("did you mean origin?",)


@pytest.mark.parametrize(
    "data", [b"[scan", b"\xff", b"a = " + b"[" * 5000, b"a = " + b"9" * 5000], ids=["cut", "not-utf-8", "deep", "long"]
)
def test_what_is_not_toml_is_refused(data: bytes) -> None:
    with pytest.raises(PolicyError, match=r"palladion\.toml"):
        parse_policy(data, "palladion.toml")


def test_a_policy_file_of_absurd_size_is_not_parsed(tmp_path: Path) -> None:
    path = tmp_path / "palladion.toml"
    path.write_bytes(b"#" * (POLICY_BYTES_MAX + 1))
    with pytest.raises(FormatError, match="larger than"):
        load_policy(path)


def test_a_policy_cannot_be_changed_after_it_is_read() -> None:
    with pytest.raises(AttributeError):
        Policy().keys = msgspec.UNSET  # type: ignore[misc, assignment]


def test_marks_without_retention_are_refused() -> None:
    marking = '[[route]]\nmodel = "fraud"\nflipped = 0.03\n'
    assert parse_policy(marking.encode(), "it").route[0].flipped == 0.03
    with pytest.raises(PolicyError, match=r"marks answers \(flipped = 0.03\), and retention.queries is 0") as caught:
        parse_policy(f"[retention]\nqueries = 0\n\n{marking}".encode(), "it")
    assert "flipped = 0" in caught.value.hints[0]


def test_without_marks_nothing_has_to_be_kept() -> None:
    assert parse_policy(b'[retention]\nqueries = 0\n[[route]]\nmodel = "fraud"\n', "it").retention.queries == 0


def _patterns(table: Any, name: str) -> Iterator[tuple[str, str]]:
    """Every setting that has to match a pattern, and the pattern."""
    for key, hint in get_type_hints(table, include_extras=True).items():
        yield from _patterns_of(hint, f"{name}.{key}")


def _patterns_of(hint: Any, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(hint, Meta):
        if hint.pattern is not None:
            yield name, hint.pattern
    elif isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        yield from _patterns(hint, name)
    else:
        for inner in get_args(hint):
            yield from _patterns_of(inner, name)


def test_every_pattern_has_words_and_no_words_are_left_over() -> None:
    found = {name for key, (table, _) in section_types().items() for name, _ in _patterns(table, key)}
    assert found == set(FORMS)


def test_the_example_in_the_words_fits_the_pattern() -> None:
    for key, (table, _) in section_types().items():
        for name, pattern in _patterns(table, key):
            examples = re.split(r",? or |, ", FORMS[name].partition(" such as ")[2])
            fits = [re.fullmatch(pattern, example.split()[-1]) for example in examples if "without" not in example]
            assert name in {"ledger.key", "ledger.witnesses"} or all(fits), (name, examples)


def test_a_choice_within_a_list_is_told_by_its_values() -> None:
    issuer = "[[issuer]]\nurl = 'https://a.example'\naudience = 'b'\nalgorithms = ['HS256']\n"
    with pytest.raises(PolicyError, match=r"issuer.algorithms: expected RS256, .*ES512 or EdDSA, got"):
        _parse(issuer)
    with pytest.raises(PolicyError, match=r"route.inputs.type: expected bool, .* or string, got 'int'"):
        _parse("[[route]]\nmodel = 'a'\ninputs = [{name = 'x', type = 'int', path = '$.a'}]\n")
