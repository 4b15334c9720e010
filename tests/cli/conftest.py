"""Sessions run in a folder of their own, with a cheap passphrase and the files that they speak of."""

import json
from pathlib import Path

import pytest

from palladion.seal.recipients import Cost, PassphraseRecipient
from tests.models import onnx_bytes, rows_bytes, safetensors_bytes, write


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two versions of a model, rows, weights, folders, a pickle, a broken model, and passphrase files."""
    from palladion.cli import approval_key, backup, init, key, key_split

    cheap = Cost(memory_kib=64, iterations=1, lanes=1)  # Argon2 is tested in its own room
    for module in (approval_key, backup, init, key, key_split):
        monkeypatch.setattr(module, "passphrase_recipient", lambda text, _: PassphraseRecipient(text, cost=cheap))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for variable in ("XDG_CONFIG_HOME", "PALLADION_HOST"):
        monkeypatch.delenv(variable, raising=False)
    work = tmp_path / "work"
    work.mkdir()
    write(work / "v1.onnx", onnx_bytes(1))
    write(work / "v2.onnx", onnx_bytes(2))
    write(work / "weights.safetensors", safetensors_bytes())
    for name in ("llama", "lora"):
        (work / name).mkdir()
        write(work / name / "model.safetensors", safetensors_bytes())
    write(work / "llama" / "config.json", b"{}")
    write(work / "lora" / "adapter_config.json", b"{}")
    write(work / "engine.plan", b"an engine")
    write(work / "bad.pkl", b"\x80\x04N.")
    write(work / "cut.onnx", onnx_bytes(1)[:-7])
    write(work / "tokens.json", json.dumps([7 * index % 101 for index in range(44)]).encode())
    vectors = Path(__file__).parents[1] / "attest" / "vectors" / "snp"
    write(work / "report.bin", bytes.fromhex((vectors / "report_milan.hex").read_text()))
    write(work / "vcek.der", (vectors / "vcek_milan.der").read_bytes())
    write(work / "rows.npy", rows_bytes())
    write(work / "pass", b"correct horse battery staple\n")
    write(work / "pass2", b"another long passphrase\n")
    write(work / "short", b"short\n")
    write(work / "empty", b"\n")
    return work
