"""Every benchmark runs in its smallest form, in time, and prints the document that all of them share."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.__main__ import SCRIPTS
from bench.report import SEED

ROOT = Path(__file__).resolve().parents[2]
SECONDS_MAX = 180  # several times what is meant: these machines are shared, and two run side by side


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", SCRIPTS)
def test_the_smallest_form_ends_in_time_with_a_whole_document(name: str) -> None:
    command = [sys.executable, "-m", "bench", name, "--smoke", "--json"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
    assert ended.returncode == 0, ended.stderr
    document = json.loads(ended.stdout)
    assert document.keys() == {"rows", "seed", "seconds"}
    assert document["seed"] == SEED
    assert document["seconds"] <= SECONDS_MAX
    assert document["rows"]
    for row in document["rows"]:
        assert row.keys() == {"name", "value", "unit", "reference", "bar", "holds"}
        assert math.isfinite(row["value"]), row
        assert row["unit"], row
        assert (row["holds"] is None) == (row["bar"] == ""), row
    # a table may show one row twice only in another unit
    assert len({(row["name"], row["unit"]) for row in document["rows"]}) == len(document["rows"])
    # a figure alone says nothing on another machine
    assert any(row["reference"] for row in document["rows"])
