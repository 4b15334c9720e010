"""`palladion watch export` and `watch join`: a thief who shares queries out to two gates is seen by both together."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from palladion.cli.main import main
from palladion.gate.served import load_calibration
from palladion.ledger.record import decode_record
from palladion.lifecycle.client_copy import export_clients
from palladion.lifecycle.clients import add_client
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.open import find_version, open_version
from palladion.lifecycle.protect import protect
from palladion.lifecycle.watch_copy import export_states, purpose_of
from palladion.model.run import open_session
from palladion.registry import CalibrationRow
from palladion.seal.sign import publisher_text
from palladion.watch.calibration import Calibration
from tests.lifecycle.installations import ACTOR, Made, make
from tests.models import onnx_bytes, write

pytestmark = pytest.mark.slow  # two installations and a calibration

SEED = 31


def _run(made: Made, *arguments: str, code: int = 0) -> None:
    assert main(["--home", str(made.home), *arguments]) == code


def _row(installation: Installation) -> tuple[CalibrationRow, Calibration]:
    version = find_version(installation, "fraud")
    with installation.open_registry() as registry, registry.read() as records:
        row = records.calibrations.newest("fraud", 1)
    assert row is not None
    return row, load_calibration(installation, version, row)


def _asks(installation: Installation, rows: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Save what the watch would know of clients, by name, who have asked these rows."""
    row, calibration = _row(installation)
    with open_version(installation, "fraud") as opened:
        session = open_session(opened.model)
    with installation.open_registry() as registry, registry.write() as records:
        states = {}
        for name, asked in rows.items():
            state, inputs = calibration.new_state(), asked.astype(np.float32)
            scores = session.run({"x": inputs})["probabilities"].astype(np.float64)
            state.read(calibration.instruments, inputs.astype(np.float64), scores, horizon=16)
            states[records.clients.named(name, "it").id] = state.to_bytes()
        records.gate_states.save(purpose_of("fraud", row.digest), states)


def test_two_gates_come_to_one_calibration_and_join_what_they_saw(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # 1. two gates with one version of the model and the same clients, of which one is calibrated
    there, here = make(tmp_path / "there"), make(tmp_path / "here")
    for made in (there, here):
        protect(made.installation, made.owner, write(tmp_path / "model.onnx", onnx_bytes(1)), "fraud", actor=ACTOR)
    for name in ("honest", "thief", "late"):
        add_client(there.installation, name, "it", models=[], environment="test", expires=None, actor=ACTOR)
    publisher = publisher_text(there.owner.signer("publisher").public_key)
    policy = here.installation.paths.policy
    written = policy.read_text()
    policy.write_text(written.replace("publishers = [", f'publishers = [\n  "{publisher}",', 1))
    assert policy.read_text() != written
    to = [here.installation.stated_recipient("gate")]
    clients, states = tmp_path / "clients.sealed", tmp_path / "states.sealed"
    export_clients(there.installation, there.owner, clients, to, actor=ACTOR)
    _run(here, "client", "import", str(clients), "--publisher", publisher)
    generator = np.random.default_rng(SEED)
    np.savez(tmp_path / "data.npz", x=generator.standard_normal((400, 4)).astype(np.float32))
    sizes = ("--clients", "200", "--organisations", "20", "--horizon", "16", "--no-curve")
    _run(there, "watch", "calibrate", "fraud", "--validation", str(tmp_path / "data.npz"), *sizes)
    honest, stolen = generator.standard_normal((12, 4)), 2.5 * generator.standard_normal((12, 4))
    _asks(there.installation, {"honest": honest[:6], "thief": stolen[:6], "late": honest[:5]})
    export_states(there.installation, there.owner, "fraud", states, to, actor=ACTOR)
    capsys.readouterr()

    # 2. without a calibration, and with one of its own, this gate cannot join them
    _run(here, "watch", "join", str(states), "--publisher", publisher, code=2)
    assert "no version of fraud that is served is calibrated here" in capsys.readouterr().err
    _run(here, "watch", "calibrate", "fraud", "--validation", str(tmp_path / "data.npz"), *sizes, "--seed", "2")
    _run(here, "watch", "join", str(states), "--publisher", publisher, code=2)
    assert "goes by another calibration of fraud" in capsys.readouterr().err

    # 3. it takes over the other's, and then joins what both saw
    _run(here, "watch", "join", str(states), "--publisher", publisher, "--take-calibration")
    told = capsys.readouterr().out
    row, _ = _row(here.installation)
    assert row.digest == _row(there.installation)[0].digest
    assert f"took over the calibration {row.digest[:16]} of gate" in told
    assert "0 clients of fraud asked here and at gate" in told
    record = decode_record(next(data for _, data in here.installation.read_ledger().tail(1)), what="it")
    assert (record.kind, record.subject, record.details["digest"]) == ("watch.calibrated", "fraud@1", row.digest)
    _asks(here.installation, {"honest": honest[6:], "thief": stolen[6:]})
    _run(here, "watch", "join", str(states), "--take-calibration", "--json")
    document = json.loads(capsys.readouterr().out)
    assert document["calibration_taken"] is None
    thief, other = document["clients"]
    assert (thief["client"], other["client"], document["unknown"]) == ("thief/it", "honest/it", 0)
    assert thief["p_value"] < other["p_value"]
    assert thief["queries"] == other["queries"] == 12
    assert thief["buckets"] <= thief["buckets_here"] + thief["buckets_there"]
    _run(here, "watch", "join", str(states))
    shown = capsys.readouterr().out
    assert "2 clients of fraud asked here and at gate" in shown
    assert ("watched" in shown) == (thief["asks_for"] == "watched")


def test_a_file_of_somebody_else_says_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made, path = make(tmp_path), tmp_path / "states.sealed"
    path.write_bytes(b"no sealed file")

    _run(made, "watch", "join", str(path), code=1)

    assert "states.sealed" in capsys.readouterr().err
