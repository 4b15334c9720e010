"""What commands share: printing, passphrases, keys that are typed, sizes, tables."""

import io
import json
import os
import re
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from palladion.cli import output
from palladion.errors import KeysError, NotFoundError, PalladionError, StorageError, TamperError
from palladion.keys import Ed25519Signer
from palladion.ledger.checkpoint import VerifierKey
from palladion.seal.recipients import FileIdentity
from palladion.seal.sign import publisher_text


def test_a_passphrase_is_the_first_line_of_its_file(tmp_path: Path) -> None:
    (tmp_path / "p").write_text("pässphrase with spaces \nsecond line\n")
    assert output.read_passphrase(tmp_path / "p") == "pässphrase with spaces "


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe\n"])
def test_a_file_without_a_passphrase_is_refused_and_not_quoted(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "p").write_bytes(content)
    with pytest.raises(KeysError, match="the passphrase") as caught:
        output.read_passphrase(tmp_path / "p")
    assert "xff" not in str(caught.value)


def test_a_missing_passphrase_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="nowhere: no such file"):
        output.read_passphrase(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "content", [b"x" * 1025, b"x" * 10_000, "ä".encode() * 513, "\u1112\u1161\u11ab".encode() * 1024, b"\xff" * 5000]
)
def test_a_passphrase_that_cannot_be_used_is_refused_and_not_quoted(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "p").write_bytes(content)
    with pytest.raises(KeysError, match="the passphrase cannot be used: ") as caught:
        output.read_passphrase(tmp_path / "p")
    assert len(str(caught.value)) < 150


def test_the_longest_passphrase_is_taken(tmp_path: Path) -> None:
    (tmp_path / "p").write_bytes(b"x" * 1024 + b"\r\n")
    assert output.read_passphrase(tmp_path / "p") == "x" * 1024


def test_a_new_passphrase_has_a_least_length(tmp_path: Path) -> None:
    (tmp_path / "p").write_text("eleven char\n")
    assert output.read_passphrase(tmp_path / "p") == "eleven char"
    with pytest.raises(KeysError, match="11 characters, at least 12"):
        output.read_passphrase(tmp_path / "p", new=True)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (3 * 1024**3, "3.0 GiB"),
        (2**50, "1024.0 TiB"),
    ],
)
def test_sizes_are_for_people(count: int, text: str) -> None:
    assert output.size_text(count) == text


def test_a_table_in_a_pipe_is_never_cut(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table(("name", "digest"), [("a", "f" * 300), ("[bold]b", None)])
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["name     digest", "a        " + "f" * 300, "[bold]b"]


def test_the_actor_does_not_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "somebody-else")
    monkeypatch.setenv("USER", "somebody-else")
    assert output.actor().startswith("user:")
    assert "somebody-else" not in output.actor()


HOSTILE = "a\nb\x1b[31m\u202ec\x9bd\u200be\udcff\u2028 é 漢 😀 \\ :bomb: [bold]"
ESCAPED = r"a\nb\x1b[31m\u202ec\x9bd\u200be\udcff\u2028 é 漢 😀 \ :bomb: [bold]"


@pytest.mark.parametrize(
    "show",
    [
        output.echo,
        lambda text: output.echo(text, bold=True),
        output.warn,
        lambda text: output.print_fields([(text, text)]),
        lambda text: output.print_table(("column",), [(text,)]),
    ],
    ids=["echo", "bold", "warn", "fields", "table"],
)
def test_a_text_is_one_line_of_printing_characters_and_says_what_it_was(
    show: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    show(HOSTILE)
    lines = "".join(capsys.readouterr()).removeprefix("column\n").split("\n")
    assert lines[1:] == [""]
    assert ESCAPED in lines[0]
    assert lines[0].isprintable()


def test_a_row_of_the_longest_hostile_names_is_still_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table(("subject", "actor"), [("\U0010ffff" * 2048, "\U0010ffff" * 2048)])
    assert len(capsys.readouterr().out.split("\n")) == 3


def test_json_is_printed_with_every_text_whole_and_nothing_that_acts_on_a_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    document = {"a\u202e": [HOSTILE.replace("\udcff", ""), 1, 1.5, None, True], "b": {}}
    output.print_json(document)
    printed = capsys.readouterr().out
    assert json.loads(printed) == document
    assert all(line.isprintable() for line in printed.split("\n"))


def test_a_file_name_that_is_no_text_is_printed_in_json_with_its_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_json({"file": os.fsdecode(b"a\xffb"), "more": [("x", {os.fsdecode(b"\xfe"): 1})]})
    assert json.loads(capsys.readouterr().out) == {"file": r"a\udcffb", "more": [["x", {r"\udcfe": 1}]]}


def test_no_command_prints_but_through_the_helpers() -> None:
    found = []
    for path in sorted(Path(output.__file__).parent.glob("*.py")):
        if path.name != "output.py":
            pattern = r"\bclick\.(s?echo|style|echo_via_pager)\b|(?<![\w.])print\(|\bsys\.std(out|err)\.write"
            found += [f"{path.name}: {match.group()}" for match in re.finditer(pattern, path.read_text())]
    assert found == []


VERIFIER = VerifierKey("log.example", Ed25519Signer(bytes(32)).public_key)
RECIPIENT = FileIdentity.generate().recipient
KEYS: list[tuple[output.KeyType, str, Any]] = [
    (output.RECIPIENT, str(RECIPIENT), RECIPIENT),
    (output.PUBLISHER, publisher_text(VERIFIER.public_key), VERIFIER.public_key),
    (output.VERIFIER_KEY, str(VERIFIER), VERIFIER),
]


@pytest.mark.parametrize(("kind", "text", "key"), KEYS, ids=["recipient", "publisher", "verifier"])
def test_a_key_that_is_typed_is_parsed_or_a_mistake_of_the_caller(kind: output.KeyType, text: str, key: Any) -> None:
    assert kind(text) == key
    assert kind.convert(key, None, None) == key
    for wrong in (text[:-1], f"{text}x", "", "pallx1", "\udcff"):
        with pytest.raises(click.BadParameter):
            kind(wrong)


def _fails(error: PalladionError, *, as_json: bool) -> None:
    with output.finding_as_json(as_json):
        raise error


def test_a_finding_is_a_document_where_json_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    finding = TamperError("entry 3 was changed", "get another")
    with pytest.raises(TamperError):
        _fails(finding, as_json=True)
    assert json.loads(capsys.readouterr().out) == {"ok": False, "error": finding.message, "hints": ["get another"]}
    with pytest.raises(TamperError):
        _fails(finding, as_json=False)
    with pytest.raises(NotFoundError):
        _fails(NotFoundError("no such thing"), as_json=True)
    assert capsys.readouterr().out == ""


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class _AtOnce:
    """A timer that has run down."""

    def __init__(self, _seconds: float, act: Callable[[], None]) -> None:
        self.start = act

    def cancel(self) -> None:
        pass


def _drawn(monkeypatch: pytest.MonkeyPatch, stderr: io.StringIO, steps: list[tuple[str, int, int]]) -> str:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setattr(threading, "Timer", _AtOnce)
    with output.progress("test it") as bar:
        for step in steps:
            output.stages(bar)(*step)
    return stderr.getvalue()


def test_a_bar_says_what_is_done_and_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = _drawn(monkeypatch, _Terminal(), [("open", 0, 0), ("digest", 1024, 4096)])
    assert "test it" in drawn  # before it was told anything
    assert "digest 1.0 KiB of 4.0 KiB" in drawn
    assert "25%" in drawn


def test_names_in_a_bar_do_nothing_to_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = _drawn(monkeypatch, _Terminal(), [("a\x1b[31mb\n[bold]", 1, 2)])
    assert r"a\x1b[31mb\n[bold] 1 B of 2 B" in drawn


def test_a_stage_after_another_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = _drawn(monkeypatch, _Terminal(), [("digest", 4096, 4096), ("seal", 1024, 4096)])
    # the time that is left is that of the stage, and not the nothing that was left of the one before
    assert drawn.rpartition("seal")[2].count("0:00:00") == 0
    assert "25%" in drawn.rpartition("seal")[2]


def test_nothing_is_drawn_where_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _drawn(monkeypatch, io.StringIO(), [("digest", 1, 2)]) == ""
    stderr = _Terminal()
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setenv("TERM", "dumb")
    with output.progress("test it") as bar:
        bar(1, 2)
    assert stderr.getvalue() == ""


def test_a_command_that_is_quick_draws_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = _Terminal()
    monkeypatch.setattr(sys, "stderr", stderr)
    with output.progress("test it") as bar:
        bar(1, 2)
    assert stderr.getvalue() == ""
