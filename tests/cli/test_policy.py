"""What the commands about the policy say, with a gate that is only told of."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from palladion.cli.main import main
from palladion.gate.operations.access import open_access, read_digests
from palladion.gate.operations.policies import FILES, Policies
from palladion.ledger import remote
from palladion.policy import Policy, load_policy
from tests.gate.gates import House, make_house

OPEN, SHUT = "permit(principal, action, resource);", "forbid(principal, action, resource);"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    return make_house(tmp_path_factory.mktemp("house"))


class _Home:
    """A house's folder, whose policy a test writes and whose gate has started with it."""

    def __init__(self, house: House, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.installation = house.copy(folder).installation
        self.file = self.installation.paths.policy
        self._monkeypatch = monkeypatch

    def put(self, more: str, *, access: str = "") -> None:
        text = self.file.read_text(encoding="utf-8")
        named = text.replace("[access]\n", f'[access]\npolicies = "{access}"\n', 1) if access else text
        self.file.write_text(f"{named}\n{more}\n", encoding="utf-8")

    def start(self) -> None:
        self.installation.policy = load_policy(self.file)

        async def apply(policy: Policy, *_: Any) -> None:
            self.installation.policy = policy

        policies = Policies(
            self.installation,
            check=lambda _: None,
            apply=apply,
            marking=False,
            opened=open_access(self.installation.policy, self.installation.paths.home).digests,
        )
        self._monkeypatch.setattr(remote, "read_settings", lambda _: policies.settings())

        def reload(*_: Any) -> tuple[str, list[dict[str, Any]]]:
            import asyncio

            reply = asyncio.run(policies.take_over("user:test"))
            return reply.digest, reply.changes

        self._monkeypatch.setattr(remote, "reload_policy", reload)

    def run(self, *arguments: str) -> int:
        return main(["--home", str(self.installation.paths.home), "policy", *arguments])


@pytest.fixture
def home(house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> _Home:
    return _Home(house, tmp_path, monkeypatch)


Capture = Callable[[], tuple[str, str]]


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Capture:
    def read() -> tuple[str, str]:
        captured = capsys.readouterr()
        return captured.out, captured.err

    return read


@pytest.mark.slow
def test_a_policy_that_serve_would_refuse_is_refused_by_check(home: _Home, said: Capture) -> None:
    home.put('[[route]]\nmodel = "nobody"\n')
    assert home.run("check") == 2
    assert "route /v1/models/nobody/predict: no model 'nobody'" in said()[1]


def test_a_contract_of_nobody_is_told_by_check_and_after_a_reload(home: _Home, said: Capture) -> None:
    home.put('[[contract]]\nclient = "acme"\n\n[[contract]]\nclient = "acne"\n')
    home.start()
    for command in ("check", "reload"):
        assert home.run(command) == 0
        assert said()[1] == "palladion: warning: there is no client acne/acne, which has a contract\n"


def test_access_policies_that_changed_are_told_by_diff_and_taken_over_by_reload(home: _Home, said: Capture) -> None:
    access = home.installation.paths.home / "access.cedar"
    access.write_text(OPEN, encoding="utf-8")
    home.put("", access=access.name)
    home.start()
    assert (home.run("diff"), home.run("reload")) == (0, 0)
    assert said()[0].count("nothing differs") == 2
    access.write_text(SHUT, encoding="utf-8")
    (was,) = read_digests(home.installation.policy, home.installation.paths.home)
    assert home.run("diff") == 1
    (line,) = said()[0].splitlines()[1:]
    assert (line.startswith(was), line.rstrip().endswith("reload")) == (True, True)
    for command in ("diff", "reload"):
        home.run(command, "--json")
        (change,) = json.loads(said()[0])["changes"]
        assert (change["setting"], change["live"]) == (was, True)
    assert home.run("diff") == 0


def test_access_policies_that_are_wrong_are_refused_with_their_line(home: _Home, said: Capture) -> None:
    access = home.installation.paths.home / "access.cedar"
    access.write_text(OPEN, encoding="utf-8")
    home.put("", access=access.name)
    home.start()
    access.write_text(f"{OPEN}\n\npermit(", encoding="utf-8")
    assert home.run("reload") == 2
    assert "access.cedar:3: not Cedar" in said()[1]


def test_diff_shows_a_contract_whole_as_it_is_written(home: _Home, said: Capture, tmp_path: Path) -> None:
    after = tmp_path / "next.toml"
    contract = '[[contract]]\nclient = "acme/a-client-with-a-long-name"\nburst = 7\nqueries_per_second = 2.5\n'
    after.write_text(home.file.read_text(encoding="utf-8") + contract, encoding="utf-8")
    assert home.run("diff", str(home.file), str(after), "--json") == 1
    assert json.loads(said()[0])["changes"][0]["after"]["burst"] == 7
    assert home.run("diff", str(home.file), str(after)) == 1
    shown = " ".join(said()[0].split())
    assert "burst = 7" in shown
    assert "…" not in shown


def test_settings_of_a_gate_say_what_its_files_were(home: _Home) -> None:
    home.start()
    assert remote.read_settings(home.installation.paths.admin) is not None
    assert (remote.read_settings(home.installation.paths.admin) or {})[FILES] == {}
