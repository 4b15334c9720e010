"""What `palladion ledger export` does that a session cannot show: bytes, receivers, names, and what it goes on with."""

import io
import json
import random
import signal
import subprocess
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path

import click
import pytest

from palladion.cli.ledger_export import export
from palladion.cli.main import main
from palladion.clock import SystemClock
from palladion.errors import BusyError, StorageError
from palladion.export import destination
from palladion.export import follow as following
from palladion.ledger.record import decode_record
from palladion.lifecycle.installation import Installation
from tests.export.items import make, refusals
from tests.export.test_cef import parse as parse_cef
from tests.export.test_destination import Listening, everything
from tests.export.test_syslog import parse, split
from tests.ledger.ledgers import KEY


def run(*arguments: str) -> None:
    """The command, which raises what it refuses."""
    export.main(list(arguments), "palladion ledger export", standalone_mode=False, obj=Path())


@pytest.fixture
def ledger(tmp_path: Path) -> list[str]:
    """A ledger of 300 refusals, as options."""
    make(tmp_path / "ledger", refusals(300))
    return ["--ledger", str(tmp_path / "ledger"), "--key", str(KEY)]


def test_without_a_target_lines_and_nothing_else_are_printed(
    ledger: list[str], capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    run("--format", "ocsf", *ledger)
    events = [json.loads(line) for line in capsysbinary.readouterr().out.splitlines()]
    assert [event["metadata"]["sequence"] for event in events] == list(range(300))


@pytest.mark.slow
@pytest.mark.parametrize("form", ["syslog", "cef"])
def test_a_receiver_gets_messages_that_it_can_tell_apart(
    form: str, ledger: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    listening = Listening(everything)
    run("--format", form, "--to", str(listening.address), "--host", "gate-1", "--detail", "requests=7", *ledger)
    (raw,) = split(listening.end()[0])
    message = parse(raw)
    assert (message.host, message.kind) == ("gate-1", "answer.refused")
    number = message.data["entry"] if form == "syslog" else parse_cef(message.text)[1]["externalId"]
    assert number == "6"
    assert capsys.readouterr().out.startswith("exported 1 of 300 entries of ledger.example/test as ")


@pytest.mark.slow
def test_a_client_stays_a_pseudonym_unless_it_may_be_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert main(["init", "--passphrase-file", "pass"]) == 0
    assert main(["client", "add", "web", "--organisation", "acme"]) == 0
    for more in ([], ["--name-clients"]):
        run("--format", "jsonl", "--kind", "client.added", "--out", "out", *more)
        found = json.loads(Path("out").read_bytes())
        assert found["record"]["subject"].startswith("client:")
        assert found.get("client") == ("acme/web" if more else None)
        assert ("acme" in Path("out").read_text()) == bool(more)
        run("--format", "parquet", "--out", "out.parquet", *more)
        assert (b"acme/web" in Path("out.parquet").read_bytes()) == bool(more)


@pytest.mark.slow
def test_an_export_of_ones_own_ledger_is_recorded_before_anything_goes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert main(["init", "--passphrase-file", "pass"]) == 0

    def told() -> list[dict[str, object]]:
        assert main(["ledger", "verify"]) == 0
        reader = Installation.find(folder, SystemClock()).read_ledger()
        records = [decode_record(data, what=str(index)) for index, data in reader.entries()]
        return [record.details for record in records if record.kind == "ledger.exported"]

    run("--format", "jsonl", "--out", "out", "--kind", "keys.created", "--name-clients")
    (first,) = told()
    assert (first["form"], first["to"], first["first"], first["named"]) == ("jsonl", "out", 0, True)
    assert first["question"] == {"kinds": ["keys.created"]}
    size = first["size"]
    run("--format", "parquet", "--out", "out.parquet")
    assert (told()[1]["size"], told()[1]["to"]) == (size + 1, "out.parquet")  # type: ignore[operator]
    # nothing listens there, and all the same it was to go
    monkeypatch.setattr(destination, "TRIES_MAX", 1)
    with pytest.raises(StorageError):
        run("--format", "cef", "--to", "tcp://127.0.0.1:9")
    assert told()[2]["to"] == "tcp://127.0.0.1:9"
    # a copy tells nobody
    run("--format", "jsonl", "--out", "copy", "--ledger", ".palladion/ledger")
    assert len(told()) == 3


@pytest.mark.slow
def test_what_cannot_be_recorded_does_not_go(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert main(["init", "--passphrase-file", "pass"]) == 0
    installation = Installation.find(folder, SystemClock())
    with installation.lock_ledger(installation.open_gate_root()), pytest.raises(BusyError):
        run("--format", "jsonl", "--out", "out")
    assert not Path("out").exists()


def test_following_goes_on_from_the_kept_place(
    ledger: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = list[float]()

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        raise KeyboardInterrupt

    monkeypatch.setattr(following, "follow", partial(following.follow, sleep=sleep))
    kept = ["--state", str(tmp_path / "place"), "--out", str(tmp_path / "out"), *ledger]
    run("--format", "jsonl", "--until", "2026-05-01T12:31", *kept)
    before = (tmp_path / "out").read_bytes()
    with pytest.raises((KeyboardInterrupt, click.Abort)):
        run("--format", "jsonl", "--follow", "--every", "9", *kept)
    # what did not fit the first time was looked at, and is not taken up again
    assert (tmp_path / "out").read_bytes() == before
    assert (len(before.splitlines()), waits) == (60, [9])


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_an_export_that_is_killed_again_and_again_leaves_nothing_out(seed: int, tmp_path: Path) -> None:
    make(tmp_path / "ledger", refusals(3000))
    out, generator, kills = tmp_path / "out", random.Random(seed), 0
    options = ["--ledger", str(tmp_path / "ledger"), "--key", str(KEY), "--state", str(tmp_path / "place")]
    program = "import sys; from palladion.cli.ledger_export import export; export(sys.argv[1:])"
    # small batches, so that there is a middle to be killed in
    program = f"from palladion.export import follow; follow.BATCH = 50; {program}"
    command = [sys.executable, "-c", program, "--format", "jsonl", "--out", str(out), *options]
    until = 0
    while True:
        until += generator.randrange(50_000, 250_000)
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            while process.poll() is None and not (out.exists() and out.stat().st_size >= until):
                with suppress(subprocess.TimeoutExpired):
                    process.wait(0.002)
            process.kill()
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL
        kills += 1
    numbers = [json.loads(line)["entry"] for line in out.read_bytes().splitlines()]
    assert sorted(set(numbers)) == list(range(3000)), f"seed {seed}"
    assert kills > 2
    assert len(numbers) - 3000 <= 50 * kills


def test_a_file_stays_as_it_is_where_an_entry_cannot_be_proved(ledger: list[str], tmp_path: Path) -> None:
    path = next((tmp_path / "ledger" / "tile" / "entries").glob("001*/*"))
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    (tmp_path / "out").write_bytes(b"before")
    with pytest.raises(Exception, match="entry 256 was changed"):
        run("--format", "cef", "--out", str(tmp_path / "out"), *ledger)
    assert (tmp_path / "out").read_bytes() == b"before"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["cef", "--out", "o", "--to", "tcp://a:1"], "--out and --to"),
        (["cef", "--follow"], "--follow needs --state"),
        (["cef", "--follow", "--state", "s", "--out", "o", "--json"], "never done"),
        (["cef", "--json"], "--json needs --out or --to"),
        (["parquet"], "needs --out"),
        (["parquet", "--out", "o", "--state", "s"], "written whole"),
        (["cef", "--to", "tcp://a:1", "--tls-ca", "pem"], "certificates are for --to tls"),
        (["cef", "--to", "tls://a:1", "--tls-key", "pem"], "--tls-key needs"),
        (["xml"], "'xml' is not one of"),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_is_done(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pem").touch()
    with pytest.raises(click.UsageError, match=said):
        run("--format", *arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["pem"]


def test_a_closed_reader_of_the_output_ends_it_quietly(ledger: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(io.BytesIO):
        def writelines(self, lines: object) -> None:
            raise BrokenPipeError

    class Output(io.StringIO):
        buffer = Closed()

    monkeypatch.setattr(sys, "stdout", Output())
    with pytest.raises(BrokenPipeError):  # which `main` takes for what it is
        run("--format", "jsonl", *ledger)
