"""The demo, as a person runs it."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_the_demo_ends_well_and_leaves_no_readable_model(tmp_path: Path) -> None:
    pytest.importorskip("skl2onnx", reason="the demo extra is not installed: pip install 'palladion[demo]'")
    command = [sys.executable, "-m", "palladion", "demo", "--folder", str(tmp_path / "demo")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "files here that a model reader can open: 0" in done.stdout
    assert "540 of 540 answers are those of the original" in done.stdout
    assert "entry 3 was changed" in done.stdout
