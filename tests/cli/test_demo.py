"""The demo, as a person runs it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.service
@pytest.mark.timeout(300)
def test_the_demo_catches_the_thief_the_ring_the_leak_and_the_forgery(tmp_path: Path) -> None:
    pytest.importorskip("skl2onnx", reason="the demo extra is not installed: pip install 'palladion[demo]'")
    command = [sys.executable, "-m", "palladion", "demo", "--folder", str(tmp_path / "demo")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "files here that a model reader can open: 0" in done.stdout
    assert "500 of 500 answers are those that the model gives without a gate" in done.stdout
    assert "0 of 10 were disturbed" in done.stdout
    fidelities = {
        (attacker, gate): float(found)
        for attacker, gate, found in re.findall(r"(thief|ring) +(defended|defences off) .* ([0-9.]+)%", done.stdout)
    }
    assert fidelities["thief", "defences off"] > 2 * fidelities["thief", "defended"]
    assert fidelities["ring", "defences off"] > 2 * fidelities["ring", "defended"]
    assert "1 of 1 accounts" in done.stdout
    assert "4 of 4 accounts" in done.stdout
    assert "leaked.onnx is hospital-b's copy of digits version 1" in done.stdout
    assert "no finding: unrelated.onnx" in done.stdout
    assert re.search(r"entry \d+ was changed", done.stdout)
