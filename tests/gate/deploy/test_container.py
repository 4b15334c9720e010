"""The Containerfile: two stages, no root, no shell needed, no secret inside."""

import re
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest

from palladion import __version__
from palladion.errors import PolicyError
from palladion.gate.deploy.container import IGNORE, containerfile
from palladion.gate.deploy.plan import make_plan
from palladion.policy import KeysPolicy

from .plans import policy, with_operators


def _last_stage() -> list[str]:
    return containerfile(make_plan(policy())).rpartition("\nFROM ")[2].splitlines()


def test_what_builds_is_not_what_runs() -> None:
    text = containerfile(make_plan(policy()))
    assert re.findall(r"^FROM (\S+)", text, re.MULTILINE) == ["${BUILD_IMAGE}", "${RUN_IMAGE}"]
    assert "distroless" in text
    assert f"palladion=={__version__}" in text


def test_what_runs_needs_neither_shell_nor_root() -> None:
    lines = _last_stage()
    assert [line for line in lines if line.startswith("RUN")] == []
    assert "USER 65532:65532" in lines
    assert [line for line in lines if line.startswith(("ENTRYPOINT", "CMD"))] == [
        'ENTRYPOINT ["/usr/bin/python3", "-m", "palladion", "--home", "/srv/palladion"]',
        'CMD ["serve"]',
    ]
    assert "STOPSIGNAL SIGTERM" in lines


def test_it_names_the_port_of_the_policy() -> None:
    text = containerfile(make_plan(policy(listen="0.0.0.0:9000")))
    assert "\nEXPOSE 9000\n" in text
    assert " -p 9000:9000 palladion-gate\n" in text
    assert "8710" not in text


def test_a_socket_in_a_volume_needs_no_port() -> None:
    text = containerfile(make_plan(policy(listen="unix:run/gate.sock")))
    assert "EXPOSE" not in text
    assert " -p " not in text


def test_a_gate_that_nobody_outside_could_reach_is_refused() -> None:
    with pytest.raises(PolicyError, match="nobody reaches from outside the container") as caught:
        containerfile(make_plan(policy(listen="127.0.0.1:8710")))
    assert "0.0.0.0:8710" in caught.value.hints[0]


def test_grpc_has_its_port_and_is_installed() -> None:
    text = containerfile(make_plan(policy(grpc_listen="0.0.0.0:8712")))
    assert "\nEXPOSE 8710\nEXPOSE 8712\n" in text
    assert " -p 8710:8710 -p 8712:8712 palladion-gate\n" in text
    assert f'"palladion[grpc]=={__version__}"' in text
    assert "(pip wheel -w wheels palladion[grpc])" in text


def test_grpc_that_nobody_outside_could_reach_is_refused() -> None:
    with pytest.raises(PolicyError, match=r"gate\.grpc_listen is 127\.0\.0\.1:8712, which nobody reaches") as caught:
        containerfile(make_plan(policy(grpc_listen="127.0.0.1:8712")))
    assert 'grpc_listen = "0.0.0.0:8712"' in caught.value.hints[0]


def test_operators_whom_nobody_could_tell_apart_are_refused() -> None:
    with pytest.raises(PolicyError, match=r"operators\.socket is set, and in a container everybody is one user"):
        containerfile(make_plan(with_operators(policy(), socket="run/operators.sock")))


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("~/.config/palladion/host.identity", "/srv/palladion/.config/palladion"),
        ("keys/host.identity", "/srv/palladion/keys"),
        ("/etc/palladion/host.identity", "/etc/palladion"),
    ],
)
def test_the_host_identity_has_a_volume_where_the_gate_looks_for_it(name: str, folder: str) -> None:
    text = containerfile(make_plan(msgspec.structs.replace(policy(), keys=KeysPolicy(host_identity=name))))
    assert f" -v ./identity:{folder}:ro " in text


@pytest.mark.parametrize("name", ["host.identity", "~/host.identity", "/srv/host.identity", "/host.identity"])
def test_a_host_identity_without_a_folder_of_its_own_is_refused(name: str) -> None:
    with pytest.raises(PolicyError, match="cannot be a volume of its own"):
        containerfile(make_plan(msgspec.structs.replace(policy(), keys=KeysPolicy(host_identity=name))))


@pytest.mark.parametrize("wheels", [True, False])
def test_only_wheels_that_are_there_keep_the_build_from_the_network(tmp_path: Path, wheels: bool) -> None:
    shell = shutil.which("sh")
    assert shell is not None
    # the Containerfile itself is always copied there, because a pattern may match nothing else
    (tmp_path / "Containerfile").touch()
    if wheels:
        (tmp_path / "palladion-1-py3-none-any.whl").touch()
    choice = re.search(r"(if .*; fi) ", containerfile(make_plan(policy())))
    assert choice is not None
    script = f"{choice[1].replace('/wheels', str(tmp_path))}; echo $#"
    run = subprocess.run([shell, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout == ("3\n" if wheels else "0\n")


def test_nothing_of_an_installation_can_get_in() -> None:
    rules = [line for line in IGNORE.splitlines() if not line.startswith("#")]
    assert rules == ["*", "!Containerfile", "!wheels"]
