"""The generated image, built and run: not as root, on files that cannot change, asked over its own loopback."""

import os
from pathlib import Path

import pytest

from palladion.gate.deploy.container import HOME, IGNORE, IGNORE_NAME, NAME, USER, containerfile, identity_folder
from palladion.gate.deploy.plan import make_plan
from palladion.policy import RoutePolicy
from tests.gate.deploy import images
from tests.gate.gates import MODEL, PATH, ROW, House
from tests.gate.service import configure

pytestmark = [pytest.mark.slow, pytest.mark.service, pytest.mark.timeout(900)]

ASK = f"""
import json, os, urllib.error, urllib.request

def ask(path, body=None):
    headers = {{"authorization": "Bearer KEY", "content-type": "application/json"}}
    request = urllib.request.Request("http://127.0.0.1:8710" + path, body, headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()

status = dict(line.split(":", 1) for line in open("/proc/1/status") if ":" in line)
print(json.dumps({{
    "ready": ask("/health/ready")[0],
    "answer": ask({PATH!r}, json.dumps({{"inputs": [{ROW!r}]}}).encode()),
    "user": status["Uid"].split(),
    "capabilities": int(status["CapEff"], 16) | int(status["CapBnd"], 16),
    "no new privileges": int(status["NoNewPrivs"]),
    "read-only": bool(os.statvfs("/app").f_flag & os.ST_RDONLY),
    "programs": [path for path in ("/bin/sh", "/usr/bin/sh", "/usr/bin/apt-get") if os.path.lexists(path)],
}}))
"""


def test_the_image_is_built_and_answers_without_root_or_anything_to_write_to(tmp_path: Path, house: House) -> None:
    images.need()
    mine, identity, volume = house.copy(tmp_path), tmp_path / "identity", tmp_path / "home"
    configure(
        mine,
        RoutePolicy(model=MODEL),
        gate={"listen": "0.0.0.0:8710", "behind_proxy": True},
        keys={"host_identity": "~/.config/palladion/host.identity"},
    )
    identity.mkdir(mode=0o700)
    (identity / "host.identity").write_bytes((house.installation.paths.home.parent / "host.identity").read_bytes())
    (identity / "host.identity").chmod(0o600)
    (volume / ".config" / "palladion").mkdir(parents=True)
    for path in (identity, volume, *identity.rglob("*"), *volume.rglob("*")):
        os.chown(path, USER, USER)

    plan = make_plan(mine.copy(tmp_path / "again").installation.policy)
    with images.store(tmp_path / "store") as store:
        image = store.folder / "image"
        image.mkdir()
        (image / NAME).write_text(containerfile(plan))
        (image / IGNORE_NAME).write_text(IGNORE)
        images.wheels(image / "wheels")
        run = store.base("runs", images.RUNS, {})
        build = store.base("builds", images.BUILDS, {"usr/bin/apt-get": images.STAND_IN})
        root, config = store.unpack(store.build(image, BUILD_IMAGE=build, RUN_IMAGE=run))
        volumes = {HOME: (volume, "rw"), str(identity_folder(plan)): (identity, "ro")}
        with images.running(tmp_path, root, config, volumes) as container:
            assert container.process.stdout is not None
            said = []
            for line in container.process.stdout:
                said.append(line)
                if "serving on" in line:
                    break
            else:
                pytest.fail("".join(said))
            found = container.python(ASK.replace("KEY", house.keys["acme"]))
            code, answer = found.pop("answer")
            assert (code, len(answer["outputs"])) == (200, 1)
            assert found == {
                "ready": 200,
                "user": [str(USER)] * 4,
                "capabilities": 0,
                "no new privileges": 1,
                "read-only": True,
                "programs": [],
            }
            assert container.stop(config["StopSignal"]) == 0
