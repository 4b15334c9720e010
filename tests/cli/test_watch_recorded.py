"""`palladion watch calibrate --traffic`: the clients of recorded lines, without thieves, and what is said of them."""

import gzip
import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from palladion.cli.main import main
from palladion.ledger.record import Record, decode_record
from palladion.lifecycle.clients import add_client, set_standing
from palladion.lifecycle.protect import protect
from tests.lifecycle.installations import ACTOR, Made, make
from tests.models import onnx_bytes, write

pytestmark = pytest.mark.slow  # a model is protected and calibrated

SEED = 23
CLIENTS = 32
SIZES = ("--organisations", "20", "--horizon", "16", "--no-curve")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("recorded")
    made = make(folder)
    protect(made.installation, made.owner, write(folder / "model.onnx", onnx_bytes(1)), "fraud", actor=ACTOR)
    for name in ("c0", "c1"):
        add_client(made.installation, name, "it", models=[], environment="test", expires=None, actor=ACTOR)
    set_standing(made.installation, "c1", "it", "suspended", reason="a thief", actor=ACTOR)
    return made


def lines(*, own: bool = True) -> bytes:
    """Requests of clients in turn, two rows each; two of the clients are known here."""
    generator = np.random.default_rng(SEED)
    centres = 0.3 * generator.standard_normal((CLIENTS, 4))
    found = []
    for number in range(CLIENTS * 12):
        client = number % CLIENTS
        rows = (centres[client] + generator.standard_normal((2, 4))).tolist()
        line: dict[str, Any] = {"time": 1_780_000_000 + number, "client": f"c{client}/it", "inputs": rows}
        if not own:
            line = {"at": line["time"], "request": {"user": line["client"], "body": json.dumps({"x": rows})}}
        found.append(msgspec.json.encode(line) + b"\n")
    return b"".join(found)


def _run(made: Made, *arguments: str, code: int = 0) -> None:
    assert main(["--home", str(made.installation.paths.home), "watch", "calibrate", "fraud", *arguments]) == code


def _record(made: Made) -> Record:
    return next(decode_record(data, what="it") for _, data in made.installation.read_ledger().tail(1))


def test_recorded_clients_give_thresholds_and_thieves_are_none_of_them(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "traffic.jsonl.gz"
    path.write_bytes(gzip.compress(lines()))

    _run(made, "--traffic", str(path), "--without", "c7/it", "--without", "c0/it", *SIZES)
    told = capsys.readouterr().out
    record = _record(made)
    _run(made, "--traffic", str(path), *SIZES, "--json")
    document = json.loads(capsys.readouterr().out)

    assert "from 384 recorded requests, which the version answered anew" in told
    assert "left out: 1 throttled or worse, since they may be thieves; if all were honest, 3.33% more" in told
    assert "left out: 2 whom you named" in told
    assert f"{CLIENTS - 3}: few, so the promise is a coarse one" in told
    assert (record.kind, record.subject) == ("watch.calibrated", "fraud@1")
    assert {name: record.details[name] for name in ("traffic", "left_out", "without")} == {
        "traffic": 384, "left_out": 1, "without": 2,
    }  # fmt: skip
    assert (document["recorded"], document["kind"]) == (CLIENTS - 1, "few real")
    assert (document["left_out"], document["without"]) == (1, 0)
    assert document["traffic"] == {"requests": 384, "unfit": 0, "broken_lines": 0}


def test_lines_of_other_programs_and_broken_ones_are_taken_as_a_replay_takes_them(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"not JSON\n" + lines(own=False))
    places = ("--time-path", "$.at", "--client-path", "$.request.user", "--inputs-path", "$.request.body.x")

    _run(made, "--traffic", str(path), *places, *SIZES, code=1)
    assert "line 1 is no recorded request" in capsys.readouterr().err
    _run(made, "--traffic", str(path), *places, "--skip-broken", *SIZES, "--json")
    told = capsys.readouterr()
    assert json.loads(told.out)["traffic"]["broken_lines"] == 1
    assert "1 lines could not be used" in told.err


def test_a_client_that_is_not_there_cannot_be_left_out(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "traffic.jsonl"
    path.write_bytes(lines())
    before = _record(made)

    _run(made, "--traffic", str(path), "--without", "c77/it", *SIZES, code=2)

    assert "no client 'c77/it' is in these records" in capsys.readouterr().err
    assert _record(made) == before


def test_whom_the_registry_suspects_is_left_out_of_rows_in_an_array_as_well(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generator = np.random.default_rng(SEED)
    rows = generator.standard_normal((CLIENTS * 24, 4)).astype(np.float32)
    path = tmp_path / "data.npz"
    np.savez(path, x=rows, client=np.array([f"c{number % CLIENTS}/it" for number in range(len(rows))]))

    _run(made, "--validation", str(path), "--without", "c9/it", *SIZES, "--json")

    document = json.loads(capsys.readouterr().out)
    assert (document["recorded"], document["left_out"], document["without"]) == (CLIENTS - 2, 1, 1)
    assert _record(made).details["without"] == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--retained", "--skip-broken"), "go with --traffic FILE alone"),
        (("--retained", "--time-path", "$.a", "--client-path", "$.b", "--inputs-path", "$.c"), "go with --traffic"),
        (("--retained", "--image", "2x2"), "--traffic FILE, --prompts FILE"),
    ],
)
def test_options_that_mean_nothing_are_refused(
    arguments: tuple[str, ...], said: str, made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    _run(made, *arguments, code=2)
    assert said in capsys.readouterr().err
