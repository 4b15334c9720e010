"""The unit: what it says, and what systemd itself thinks of it."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from palladion.errors import PolicyError
from palladion.gate.deploy.plan import make_plan
from palladion.gate.deploy.systemd import REFRESH_NAME, TIMER_NAME, refresh_unit, timer, unit
from palladion.policy import Policy
from palladion.policy.intelligence import FeedPolicy, IntelPolicy

from .plans import HERE, policy, with_operators

EXPOSURE_MAX = 25  # of 100: systemd calls it OK below 40, and what a network service of its own needs is 10 to 20


def _unit(of: Policy, home: str = "/srv/palladion", program: str = "/opt/palladion/bin/palladion") -> str:
    folder = Path(home)
    identity = Path("/etc/palladion/host.identity")
    return unit(
        make_plan(of),
        home=folder,
        directory=folder / ".palladion",
        identity=identity,
        program=program,
        user="palladion",
    )


def test_it_serves_reloads_and_has_time_to_stop() -> None:
    text = _unit(policy())
    assert 'ExecStart="/opt/palladion/bin/palladion" --home "/srv/palladion" serve\n' in text
    assert "ExecReload=/bin/kill -HUP $MAINPID\n" in text
    assert "TimeoutStopSec=57\n" in text
    assert 'ReadWritePaths="/srv/palladion/.palladion"\n' in text


def test_a_gate_of_this_host_alone_may_speak_to_nobody_else() -> None:
    assert "IPAddressDeny=any\n" in _unit(Policy(route=(HERE,)))
    assert "IPAddressDeny" not in _unit(policy())


def test_an_installation_of_a_person_can_be_reached() -> None:
    assert "ProtectHome=true\n" in _unit(policy())
    unhidden = _unit(policy(), home="/home/anna/palladion")
    assert "\nProtectHome=" not in unhidden
    assert "# something of it is in the folder of a person" in unhidden


@pytest.mark.parametrize(
    ("socket", "line"),
    [
        ("/run/palladion/operators.sock", 'RuntimeDirectory="palladion"\nRuntimeDirectoryMode=0755\n'),
        ("run/operators.sock", 'ReadWritePaths="/srv/palladion/run"\n'),
    ],
)
def test_it_can_make_the_socket_of_operators(socket: str, line: str) -> None:
    assert line in _unit(with_operators(policy(), socket=socket))
    assert line not in _unit(policy())
    assert line in _unit(policy(listen=f"unix:{socket}"))


def test_sockets_in_one_folder_need_it_once() -> None:
    both = with_operators(policy(listen="unix:/run/palladion/gate.sock"), socket="/run/palladion/operators.sock")
    assert _unit(both).count("RuntimeDirectory=") == 1


@pytest.mark.parametrize("socket", ["operators.sock", "/run/operators.sock", "/srv/operators.sock"])
def test_a_socket_does_not_open_the_installation_to_changes(socket: str) -> None:
    with pytest.raises(PolicyError, match=r"operators\.socket is .* is read-only to the unit") as caught:
        _unit(with_operators(policy(), socket=socket))
    assert "/run/palladion/" in caught.value.hints[0]


def test_a_socket_in_the_folder_of_the_installation_needs_nothing() -> None:
    assert _unit(with_operators(policy(), socket=".palladion/operators.sock")) == _unit(policy())


def test_a_socket_of_a_group_is_given_to_it() -> None:
    of = with_operators(policy(), socket="/run/palladion/operators.sock", socket_group="staff")
    lines = _unit(of).splitlines()
    assert lines.index("SystemCallFilter=@chown") > lines.index("SystemCallFilter=~@privileged")
    assert "SupplementaryGroups=staff" in lines
    assert "SystemCallFilter=@chown" not in _unit(with_operators(policy(), socket="/run/palladion/operators.sock"))


def test_a_socket_of_a_person_can_be_reached() -> None:
    assert "\nProtectHome=" not in _unit(with_operators(policy(), socket="/home/anna/run/operators.sock"))


@pytest.mark.parametrize("home", ["/srv/a\nUser=root", '/srv/"', "/srv/%h"])
def test_a_folder_cannot_bring_settings_of_its_own(home: str) -> None:
    with pytest.raises(PolicyError, match="cannot be written"):
        _unit(policy(), home=home)


@pytest.mark.slow
def test_systemd_finds_nothing_wrong_and_little_exposed(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("this needs systemd-analyze (systemd)")
    sockets = with_operators(policy(), socket="/run/palladion/operators.sock", socket_group="root")
    for of in (policy(), Policy(route=(HERE,)), sockets):
        file = tmp_path / "palladion.service"
        file.write_text(_unit(of, program="/bin/true"))
        verified = subprocess.run([analyze, "verify", file], capture_output=True, text=True, check=False)
        complaints = [line for line in verified.stderr.splitlines() if "palladion.service" in line]
        assert complaints == []
        rated = subprocess.run(
            [analyze, "security", "--offline=true", "--json=short", f"--threshold={EXPOSURE_MAX}", file],
            capture_output=True,
            text=True,
            check=False,
        )
        assert rated.returncode == 0, [item for item in json.loads(rated.stdout) if item["set"] is False]


FAR = FeedPolicy(name="far", url="https://feeds.example/list")
NEAR = FeedPolicy(name="near", file="near.txt")


def _refresh(*feeds: FeedPolicy) -> str:
    folder = Path("/srv/palladion")
    return refresh_unit(
        make_plan(Policy(route=(HERE,), feed=feeds)),
        home=folder,
        directory=folder / ".palladion",
        identity=Path("/etc/palladion/host.identity"),
        program="/opt/palladion/bin/palladion",
        user="palladion",
    )


def test_feeds_are_refreshed_by_a_unit_of_their_own_which_may_ask_others() -> None:
    text = _refresh(FAR, NEAR)
    assert 'ExecStart="/opt/palladion/bin/palladion" --home "/srv/palladion" intel refresh\n' in text
    assert "Type=oneshot\n" in text
    assert 'ReadWritePaths="/srv/palladion/.palladion"\n' in text
    assert "IPAddressDeny" not in text
    assert "IPAddressDeny=any\n" in _refresh(NEAR)
    assert "IPAddressDeny=any\n" in _unit(Policy(route=(HERE,), feed=(FAR,)))
    assert "IPAddressDeny" not in _unit(Policy(route=(HERE,), feed=(FAR,), intel=IntelPolicy(refresh=True)))
    assert "OnCalendar=hourly\nRandomizedDelaySec=30min\nPersistent=true\n" in timer()


@pytest.mark.slow
def test_systemd_finds_nothing_wrong_with_the_timer(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("this needs systemd-analyze (systemd)")
    service, timed = tmp_path / REFRESH_NAME, tmp_path / TIMER_NAME
    service.write_text(_refresh(FAR).replace("/opt/palladion/bin/palladion", "/bin/true"))
    timed.write_text(timer())
    verified = subprocess.run([analyze, "verify", service, timed], capture_output=True, text=True, check=False)
    assert [line for line in verified.stderr.splitlines() if "palladion-intel" in line] == []
    rated = subprocess.run(
        [analyze, "security", "--offline=true", f"--threshold={EXPOSURE_MAX}", service],
        capture_output=True,
        check=False,
    )
    assert rated.returncode == 0, rated.stdout
