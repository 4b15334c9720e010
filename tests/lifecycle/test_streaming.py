"""A model that memory need not hold: protected, marked, delivered and proved tensor by tensor, in little memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from palladion.lifecycle.recipients import add_recipient
from palladion.seal.recipients import FileIdentity

from .installations import ACTOR, make

SHARDS, TENSORS, SIDE = 3, 50, 1024  # 600 MiB in tensors of 4
LARGEST_BYTES = SIDE * SIDE * 4
PEAK_BYTES_MAX = 2 * LARGEST_BYTES + 200 * 2**20

# In a process of its own, whose anonymous memory a thread looks at: pages of mapped files are not counted, since the
# kernel can drop them.
STEP = """
import json, sys, threading
from pathlib import Path
from palladion.clock import SystemClock
from palladion.lifecycle.deliver import deliver
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.mark import mark
from palladion.lifecycle.protect import protect
from palladion.lifecycle.prove import prove
from palladion.model.read import read_weights
from tests.lifecycle.installations import ACTOR, OWNER

def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))

def watch():
    while not stopped.wait(0.02):
        peaks.append(anonymous())

home, source, step, out = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], Path(sys.argv[4])
installation = Installation.find(home, SystemClock())
owner = installation.open_owner_root([OWNER])
peaks, stopped, ours = [anonymous()], threading.Event(), None
watcher = threading.Thread(target=watch)
watcher.start()
try:
    if step == "protect":
        protect(installation, owner, source, "big", actor=ACTOR)
    elif step == "deliver":
        deliver(installation, owner, "big", "acme", out, actor=ACTOR)
    elif step == "mark":
        mark(installation, owner, source, "big", out, actor=ACTOR)
    else:
        ours = prove(installation, owner, read_weights(out), ["big"], copies=False, actor=ACTOR)[0].ours
finally:
    stopped.set()
    watcher.join()
print(json.dumps({"peak": max(peaks), "ours": ours}))
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an installation, a recipient and a large model."""
    folder = tmp_path_factory.mktemp("streaming")
    random = np.random.default_rng(0)
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text("{}")
    for shard in range(SHARDS):
        tensors = {f"{shard}.{index}": random.standard_normal((SIDE, SIDE), np.float32) for index in range(TENSORS)}
        save_file(tensors, folder / "model" / f"model-{shard}.safetensors")
    made = make(folder)
    add_recipient(made.installation, "acme", str(FileIdentity(b"\x33" * 32).recipient), note="", actor=ACTOR)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("step", ["protect", "deliver", "mark", "prove"])
def test_a_large_model_takes_little_memory(home: Path, step: str) -> None:
    out = home / ("marked" if step in {"mark", "prove"} else f"{step}.sealed")
    arguments = [home / "home", home / "model", step, out]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", STEP, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["peak"] < PEAK_BYTES_MAX, f"{result['peak'] / 2**20:.0f} MiB of {PEAK_BYTES_MAX / 2**20:.0f}"
    assert result["ours"] in {None, True}
