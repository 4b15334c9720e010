"""Flower as the road: ten sites in its simulation."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from palladion.errors import MissingExtraError
from palladion.private.federated import flower
from tools import peers

from .house import fixed, name_of, terms_of, update_of

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
SECONDS_MAX = 60


def test_without_flower_the_install_line_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flwr.app", None)
    for needs in (lambda: flower.asker(object()), lambda: flower.client_app(fixed)):  # type: ignore[arg-type]
        with pytest.raises(MissingExtraError) as caught:
            needs()
        assert caught.value.hints == ("pip install 'palladion[fl]'",)


def _programs() -> Path:
    programs = peers.programs("flower")
    if programs is None:
        pytest.skip("this needs Flower in an environment of its own: python -m tools.peers flower")
    return programs


def _environment(programs: Path, folder: Path) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("HOME", "LANG", "TMPDIR") if name in os.environ}
    return {
        **kept,
        "PATH": f"{programs}:/usr/bin:/bin",
        "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}",
        "FLWR_HOME": str(folder),
        "FLWR_TELEMETRY_ENABLED": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "OMP_NUM_THREADS": "1",
        "FOUND": str(folder / "found.json"),
    }


def _simulated(folder: Path, rounds: int, crashing: int) -> dict[str, Any]:
    programs = _programs()
    command = [str(programs / "python"), str(HERE / "simulation.py"), str(rounds), str(crashing)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=SECONDS_MAX, env=_environment(programs, folder)
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.service
@pytest.mark.slow
def test_in_a_simulation_who_crashes_and_who_learns_nan_are_not_in_the_sum(tmp_path: Path) -> None:
    found = _simulated(tmp_path, 2, 1)
    rest = [number for number in range(10) if number not in {0, 9}]
    for survivors, dropped in found["rounds"]:
        assert survivors == [name_of(number) for number in rest]
        assert dropped == {name_of(0): "did not answer", name_of(9): "an update holds NaN or infinity"}
    mean = sum(update_of(number) for number in rest) / len(rest)
    assert np.allclose(found["model"], 2 * mean, atol=20 * terms_of().quantum)


@pytest.mark.service
@pytest.mark.slow
def test_in_a_simulation_too_few_sites_are_an_error_and_not_a_finished_run(tmp_path: Path) -> None:
    found = _simulated(tmp_path, 1, 4)
    assert found == {"rounds": [], "error": "round 1 has 6 results, 7 were agreed to", "raised": True}
