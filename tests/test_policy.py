"""The policy file: template, defaults, and errors that say where."""

import tomllib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion.errors import FormatError, PolicyError
from palladion.policy import POLICY_BYTES_MAX, Policy, load_policy, parse_policy, settings, template


def _parse(text: str) -> Policy:
    return parse_policy(text.encode(), "palladion.toml")


def test_the_template_is_all_comments_and_gives_the_defaults() -> None:
    assert _parse(template()) == Policy()
    assert all(not table for table in tomllib.loads(template()).values())


def test_the_template_shows_each_setting_with_its_default() -> None:
    uncommented = "\n".join(
        line.removeprefix("# ") if " = " in line and line[2:].split(" = ")[0].isidentifier() else line
        for line in template().splitlines()
    )
    document = tomllib.loads(uncommented)
    assert {f"{section}.{key}" for section, table in document.items() for key in table} == {s.name for s in settings()}
    assert _parse(uncommented) == Policy()


def test_a_value_given_to_the_template_is_set() -> None:
    text = template({"keys.escrow": ("one", 'tw"o'), "scan.file_bytes_max": 5, "protect.promote_first": False})
    policy = _parse(text)
    assert policy.keys.escrow == ("one", 'tw"o')
    assert policy.scan.file_bytes_max == 5
    assert policy.protect.promote_first is False


def test_a_setting_that_does_not_exist_cannot_be_put_into_the_template() -> None:
    with pytest.raises(ValueError, match=r"no such setting: keys\.colour"):
        template({"keys.colour": 1})


@given(st.text(st.characters(codec="utf-8", exclude_characters="\x7f")))
def test_any_text_survives_the_template(text: str) -> None:
    assert _parse(template({"registry.url": text})).registry.url == text


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


@pytest.mark.parametrize("data", [b"[scan", b"\xff", b"a = " + b"[" * 5000], ids=["cut", "not-utf-8", "deep"])
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
