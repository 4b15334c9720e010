"""No name in a model, a ledger or a folder can act on the terminal or print a line that looks like ours."""

import io
import json
import os
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from safetensors.numpy import save

from palladion.cli.main import main
from palladion.keys import Ed25519Signer
from palladion.ledger.checkpoint import VerifierKey
from palladion.ledger.record import Record
from palladion.ledger.writer import Ledger
from tests.cli.session import chdir
from tests.models import onnx_bytes, write

pytestmark = pytest.mark.slow  # makes and seals installations by the dozen

# a new line that looks like ours, one that overwrites, a sequence that hides, one in C1, marks that turn and that hide
TRICK = "x\nFORGED: onnx, no findings\rFORGED\x1b[2K\x1b]0;FORGED\x07\x9b8m\u202eFORGED\u2066\u200b\u2028FORGED"
ORIGIN = "ledger.example/hostile"


def _graph(tensor: str, operator: str, output: str) -> Any:
    weights = onnx.numpy_helper.from_array(np.ones((1, 1), np.float32), tensor)
    return helper.make_graph(
        [helper.make_node(operator, ["x", tensor], [output], domain="evil.ops" if operator != "MatMul" else "")],
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 1])],
        [helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, [1, 1])],
        [weights],
    )


def _model(graph: Any) -> bytes:
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("evil.ops", 1)]
    data: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    return data


@pytest.fixture
def hostile(folder: Path) -> Path:
    """A folder with an installation, and with hostile models, file names, a ledger and stray files in it."""
    write(folder / "tensors.onnx", _model(_graph(TRICK, "MatMul", "y")))
    write(folder / "operators.onnx", _model(_graph("w", TRICK, "y")))
    write(folder / "broken.onnx", _model(_graph("w", "MatMul", TRICK))[:-3])
    write(folder / "tensors.safetensors", save({TRICK: np.ones(3, np.float32)}))
    write(folder / "metadata.safetensors", save({"w": np.ones(3, np.float32)}, {TRICK: TRICK}))
    write(folder / TRICK, onnx_bytes())
    write(Path(os.fsdecode(os.fsencode(folder) + b"/not\xffutf8.onnx")), onnx_bytes())
    signer = Ed25519Signer(bytes(32))
    with Ledger.create(folder / "ledger", ORIGIN, signer, bytes(32)) as ledger:
        ledger.append([Record("model.opened", datetime(2026, 1, 1, tzinfo=UTC), TRICK, TRICK, {"note": TRICK})])
    write(folder / "ledger.key", str(VerifierKey(ORIGIN, signer.public_key)).encode())
    with chdir(folder):
        for line in ("init --passphrase-file pass", "protect tensors.onnx --name fraud --passphrase-file pass"):
            assert main(line.split()) == 0
    (folder / ".palladion" / "sealed" / TRICK).write_bytes(b"")
    return folder


COMMANDS = [
    "scan tensors.onnx",
    "scan operators.onnx",
    "scan broken.onnx",
    "scan TRICK",
    "scan NOT-UTF8",
    "scan metadata.safetensors",
    "inspect tensors.onnx --tensors",
    "inspect tensors.safetensors --tensors",
    "inspect broken.onnx",
    "inspect TRICK",
    "inspect NOT-UTF8",
    "protect operators.onnx --name fraud --passphrase-file pass",
    "protect TRICK --name fraud --passphrase-file pass",
    "protect NOT-UTF8 --name fraud --passphrase-file pass",
    "protect tensors.safetensors --name other --passphrase-file pass",
    "protect v1.onnx --name fraud --passphrase-file pass --note TRICK",
    "protect v1.onnx --name TRICK --passphrase-file pass",
    "protect v1.onnx --name fraud --passphrase-file TRICK/no",
    "model show fraud --tensors",
    "model show TRICK",
    "model diff fraud 1 1",
    "verify TRICK",
    "verify NOT-UTF8",
    "recipient add TRICK pallr1xp74xsnkj3pnmjl62dgk7uh0ce6t5ua4hqx8r7g4pcn8jv7zhpusqmrx6pq",
    "recipient add acme TRICK",
    "recipient add acme pallr1xp74xsnkj3pnmjl62dgk7uh0ce6t5ua4hqx8r7g4pcn8jv7zhpusqmrx6pq --note TRICK",
    "recipient new TRICK/no/identity",
    "doctor",
    "backup TRICK --passphrase-file pass",
    "restore TRICK --passphrase-file pass",
    "ledger verify --ledger ledger --key KEY",
    "ledger tail --ledger ledger --key KEY",
    "ledger show 0 --ledger ledger --key KEY",
    "ledger prove 0 --ledger ledger --key KEY --out TRICK-proof",
    "ledger check TRICK TRICK",
    "ledger checkpoint --ledger ledger --key KEY",
    "ledger verify --key TRICK",
    "ledger verify --ledger sealed --key KEY",
    "--home TRICK-home model list",
    "TRICK",
    "scan --TRICK",
]


def _run(command: str, folder: Path, *extra: str) -> tuple[str, str]:
    words = {
        "TRICK": TRICK,
        "NOT-UTF8": os.fsdecode(b"not\xffutf8.onnx"),
        "KEY": (folder / "ledger.key").read_text(),
        "TRICK/no": f"{TRICK}/no",
        "TRICK/no/identity": f"{TRICK}/no/identity",
        "TRICK-proof": f"{TRICK}-proof",
        "TRICK-home": f"{TRICK}-home",
        "--TRICK": f"--{TRICK}",
    }
    output, errors = io.StringIO(), io.StringIO()
    with chdir(folder), redirect_stdout(output), redirect_stderr(errors):
        main([words.get(word, word) for word in command.split()] + list(extra))
    return output.getvalue(), errors.getvalue()


def _lines(text: str) -> Iterator[str]:
    # not splitlines: it would take the very characters away that are looked for
    yield from text.split("\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_hostile_name_stays_within_its_line_and_does_nothing_there(command: str, hostile: Path) -> None:
    output, errors = _run(command, hostile)
    assert output + errors
    assert [line for line in _lines(output + errors) if not line.isprintable() or line.startswith("FORGED")] == []


@pytest.mark.parametrize(
    "command", ["scan operators.onnx", "scan NOT-UTF8", "inspect tensors.onnx", "ledger tail --ledger ledger --key KEY"]
)
def test_json_holds_hostile_names_escaped(command: str, hostile: Path) -> None:
    output, errors = _run(command, hostile, "--json")
    assert errors == ""
    assert all(line.isprintable() for line in _lines(output))
    assert json.loads(output)
