"""What commands share: passphrases, sizes, tables."""

from pathlib import Path

import pytest

from palladion.cli import output
from palladion.errors import KeysError, StorageError


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
