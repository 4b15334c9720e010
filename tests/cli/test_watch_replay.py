"""`watch replay`, `watch feed`, `watch campaigns` and `policy dry-run` over traffic with a thief in it."""

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

from palladion.cli.main import main
from palladion.clock import SystemClock
from palladion.errors import FINDING
from palladion.lifecycle.installation import Installation
from palladion.watch.text.query import Query
from tests.gate.gates import make_house
from tests.redteam.recordings import WATCHING, calibrate_house, traffic
from tests.redteam.test_retained_talk import retain

SUSPENDED = "globex/globex"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An installation with a calibrated model, a route that enforces, and traffic beside it."""
    folder = tmp_path_factory.mktemp("replay")
    house = make_house(folder)
    calibrate_house(house)
    policy = house.installation.paths.policy
    settings = "\n".join(f"{name} = {json.dumps(value)}" for name, value in WATCHING.items())
    text = policy.read_text().replace("\n[watch]\n", f"\n[watch]\n{settings}\n")
    policy.write_text(f'{text}\n[[route]]\nmodel = "fraud"\nmode = "enforce"\n')
    (folder / "mild.toml").write_text(policy.read_text().replace("may_enforce = true", "may_enforce = false"))
    (folder / "narrow.toml").write_text(policy.read_text().replace("\n[limits]\n", "\n[limits]\nburst = 1\n"))
    lines = b"\n".join(line.text() for line in traffic())
    (folder / "traffic.jsonl").write_bytes(lines)
    (folder / "traffic.jsonl.gz").write_bytes(gzip.compress(lines))
    logged = [
        {"ts": str(line.at), "user": f"{line.client}/{line.client}", "body": json.dumps({"rows": line.inputs})}
        for line in traffic()
    ]
    (folder / "log.jsonl").write_bytes(b"\n".join(map(msgspec.json.encode, [*logged, {"ts": "x", "path": "/health"}])))
    (folder / "broken.jsonl").write_bytes(b"junk\n" + lines)
    return house.installation.paths.home


def run(home: Path, capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    assert main(["--home", str(home), *arguments]) == code
    return capsys.readouterr().out


def replay(home: Path, capsys: pytest.CaptureFixture[str], name: str, *more: str) -> dict[str, Any]:
    text = run(home, capsys, "watch", "replay", str(home.parent / name), "--model", "fraud", "--json", *more)
    found: dict[str, Any] = json.loads(text)
    return found


FOREIGN = ("--time-path", "$.ts", "--client-path", "$.user", "--inputs-path", "$.body.rows")


@pytest.fixture(scope="module")
def talking(home: Path) -> Path:
    """The same with a language model besides, which has no calibration, and talk with a harvester in it."""
    policy = home / "palladion.toml"
    route = '[[route]]\nmodel = "llama"\nprotocol = "openai"\nmode = "enforce"\nupstream = "http://127.0.0.1:1"\n'
    other = home.parent / "talk_home"
    shutil.copytree(home, other)
    (other / "palladion.toml").write_text(f"{policy.read_text()}\n{route}")
    (other.parent / "observing.toml").write_text(
        (other / "palladion.toml").read_text().replace('mode = "enforce"', 'mode = "observe"')
    )
    lines = [
        {"time": 1_780_000_000 + 60 * number, "client": client, "text": f"{said}{'king ' * number}?", "answer_chars": 9}
        for number in range(40)
        for client, said in (("globex/globex", "Think step by step: who was "), ("acme/acme", "Where is "))
    ]
    (other.parent / "talk.jsonl").write_bytes(b"\n".join(map(msgspec.json.encode, lines)))
    return other


def test_talk_is_replayed_and_says_who_when_and_why(talking: Path, capsys: pytest.CaptureFixture[str]) -> None:
    talk = str(talking.parent / "talk.jsonl")
    found = json.loads(run(talking, capsys, "watch", "replay", "--talk", talk, "--model", "llama", "--json"))
    (thief,) = found["concerned"]
    assert (thief["client"], thief["standing"], thief["disturbed"]) == (SUSPENDED, "watched", False)
    assert [turn["queries"] for turn in thief["turns"]] == [32]
    assert (found["requests"], found["version"], found["calibration"], found["promised"]) == (80, None, None, None)
    text = run(talking, capsys, "watch", "replay", "--talk", talk, "--model", "llama")
    assert "replayed 80 requests to llama" in text
    assert "uncalibrated: words and parameters are counted by rules" in text


def test_what_is_retained_of_talk_is_replayed_as_well(
    talking: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "home"
    shutil.copytree(talking, home)
    assert main(["--home", str(home), "watch", "replay", "--retained", "--model", "llama"]) == 2
    assert "nothing is retained of what clients asked llama" in capsys.readouterr().err
    asked = [Query(f"Who was king {number}?", at=1.8e9 + number) for number in range(12)]
    retain(Installation.find(home, SystemClock(), exact=True), {"retained": asked})
    found = json.loads(run(home, capsys, "watch", "replay", "--retained", "--model", "llama", "--json"))
    assert found["retained"] == {
        "source": "llama@texts", "clients": 1, "thinned": 0, "undated": 0, "left_over": 0,
    }  # fmt: skip
    assert found["requests"] == 12
    told = run(home, capsys, "watch", "replay", "--retained", "--model", "llama")
    assert "replayed 12 retained requests of 1 clients to llama@texts" in told


def test_two_policies_are_held_against_each_other_on_talk(talking: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = ["policy", "dry-run", str(talking.parent / "observing.toml"), "--talk", str(talking.parent / "talk.jsonl")]
    found = json.loads(run(talking, capsys, *told, "--json"))
    (difference,) = found["differences"]
    assert difference["client"] == SUSPENDED
    assert (found["model"], found["before"]["policy"] != found["after"]["policy"]) == ("llama", True)
    assert "replayed 80 requests to llama" in run(talking, capsys, *told, "--model", "llama")


@pytest.mark.parametrize(
    "more", [["--retained"], ["--version", "3"], ["--skip-broken"], FOREIGN, ["traffic"]], ids=lambda item: item[0]
)
def test_talk_goes_with_nothing_that_is_of_rows(
    talking: Path, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    others = [str(talking.parent / "traffic.jsonl")] if more == ["traffic"] else list(more)
    told = ["watch", "replay", "--talk", str(talking.parent / "talk.jsonl"), "--model", "llama", *others]
    assert main(["--home", str(talking), *told]) == 2
    assert "--talk" in capsys.readouterr().err


@pytest.mark.slow
def test_the_document_says_who_when_and_why(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = replay(home, capsys, "traffic.jsonl")
    (thief,) = found["concerned"]
    assert (thief["client"], thief["standing"], thief["disturbed"]) == (SUSPENDED, "suspended", True)
    assert [turn["standing"] for turn in thief["turns"]][-1] == "suspended"
    assert thief["turns"][-1]["features"]
    assert found["share_of_clients"] == 0.5
    assert found["withheld"]["suspended"] + thief["reduced"] == found["answers_disturbed"]
    assert found["promised"]["calibrated_on"] == 99
    assert found["answered_here"] == sum(len(line.inputs) for line in traffic())


@pytest.mark.slow
@pytest.mark.parametrize(
    "other", [["traffic.jsonl.gz"], ["log.jsonl", *FOREIGN], ["broken.jsonl", "--skip-broken"]], ids=str
)
def test_the_same_traffic_is_the_same_however_it_is_written(
    home: Path, capsys: pytest.CaptureFixture[str], other: list[str]
) -> None:
    expected, found = replay(home, capsys, "traffic.jsonl"), replay(home, capsys, *other)
    assert {**found, "broken_lines": 0} == expected
    assert found["broken_lines"] == (other[0] == "broken.jsonl")


def test_standard_input_is_traffic_too(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with (home.parent / "traffic.jsonl").open() as stream:
        monkeypatch.setattr("sys.stdin", stream)
        text = run(home, capsys, "watch", "replay", "-", "--model", "fraud")
    assert "replayed 60 requests to fraud@1" in text


def test_people_read_the_same(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = run(home, capsys, "watch", "replay", str(home.parent / "traffic.jsonl"), "--model", "fraud")
    for words in (
        SUSPENDED,
        "suspended",
        "disturbed  1 clients (50.00%)",
        "promised of honest clients, in each 20 queries",
    ):
        assert words in text
    assert "acme/acme" not in text


def test_another_policy_disturbs_nobody(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = replay(home, capsys, "traffic.jsonl", "--policy", str(home.parent / "mild.toml"))
    assert found["by_standing"] == {"watched": 1}
    assert found["clients_disturbed"] == 0
    assert found["promised"]["enforces"] is False


def test_a_broken_line_ends_a_replay_with_its_number(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["--home", str(home), "watch", "replay", str(home.parent / "broken.jsonl"), "--model", "fraud"]) == FINDING
    )
    assert "line 1 is no recorded request" in capsys.readouterr().err


def dry_run(home: Path, capsys: pytest.CaptureFixture[str], policy: str, *more: str, code: int = 0) -> str:
    traffic_file = str(home.parent / "traffic.jsonl")
    return run(
        home, capsys, "policy", "dry-run", str(home.parent / policy), "--traffic", traffic_file, *more, code=code
    )


@pytest.mark.slow
def test_a_dry_run_says_who_would_be_treated_differently(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(dry_run(home, capsys, "mild.toml", "--json"))
    (one,) = found["differences"]
    assert (one["client"], one["before"]["standing"], one["after"]["standing"]) == (SUSPENDED, "suspended", "watched")
    assert (found["before"]["clients_disturbed"], found["after"]["clients_disturbed"]) == (1, 0)
    text = dry_run(home, capsys, "mild.toml")
    assert "1 clients would be treated differently" in text


@pytest.mark.slow
def test_a_dry_run_of_the_same_policy_finds_nothing(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    traffic_file = str(home.parent / "traffic.jsonl")
    text = run(home, capsys, "policy", "dry-run", str(home / "palladion.toml"), "--traffic", traffic_file)
    assert "no client would be treated differently" in text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("policy", "fail_on", "code"),
    [
        ("mild.toml", "disturbed", 0),
        ("mild.toml", "refused", 0),
        ("narrow.toml", "refused", FINDING),
        ("narrow.toml", "disturbed", 0),
    ],
)
def test_a_dry_run_fails_only_on_what_it_was_told_to(
    home: Path, capsys: pytest.CaptureFixture[str], policy: str, fail_on: str, code: int
) -> None:
    dry_run(home, capsys, policy, "--fail-on", fail_on, code=code)


@pytest.mark.slow
def test_a_dry_run_fails_where_somebody_new_would_be_disturbed(
    home: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    policy = home / "palladion.toml"
    strict = tmp_path / "strict.toml"
    strict.write_text(policy.read_text())
    mine = policy.read_text()
    policy.write_text((home.parent / "mild.toml").read_text())
    try:
        arguments = ["policy", "dry-run", str(strict), "--traffic", str(home.parent / "traffic.jsonl")]
        run(home, capsys, *arguments, "--fail-on", "disturbed", code=FINDING)
        run(home, capsys, *arguments)
    finally:
        policy.write_text(mine)


@pytest.mark.slow
def test_a_feed_says_each_thing_once_and_the_report_tells_of_it(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    feed = ("watch", "feed", str(home.parent / "log.jsonl"), "--model", "fraud", *FOREIGN)
    alerts = [json.loads(line) for line in run(home, capsys, *feed, "--json").splitlines()]
    assert {alert["client"] for alert in alerts} == {SUSPENDED}
    assert alerts[-1]["to"] == "suspended"
    assert run(home, capsys, *feed) == ""
    (route,) = json.loads(run(home, capsys, "watch", "report", "--json"))["routes"]
    assert (route["route"], route["enforced"], route["clients_disturbed"]) == ("feed:fraud", False, 1)


def test_a_hostile_name_stays_one_line_of_json(home: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    log = tmp_path / "log"
    lines = [msgspec.json.decode(line.text()) for line in traffic()]
    name = "evil\u202e\x85\x1b[2J\n"
    log.write_bytes(b"\n".join(msgspec.json.encode({**line, "client": name}) for line in lines[1::2]))
    text = run(home, capsys, "watch", "feed", str(log), "--model", "fraud", "--json")
    assert {json.loads(line)["client"] for line in text.splitlines()} == {name}
    assert text.replace("\n", "").isprintable()


def test_campaigns_are_those_of_the_running_gate(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign = {
        "model": "fraud",
        "members": [f"ring/{number}" for number in range(9)],
        "size": 12,
        "links": ["organisation:ring"],
        "p_value": 0.004,
        "queries": 90,
        "covered": 70,
        "reasons": ["outside +5.0: inputs hold values that honest rows never take"],
    }
    status = {"campaigns": [campaign, {**campaign, "p_value": 0.9, "links": ["payment"]}], "campaigns_total": 2}
    monkeypatch.setattr(Installation, "server_status", lambda self: status)
    text = run(home, capsys, "watch", "campaigns")
    assert "2 groups of linked clients" in text
    assert "ring/7, 4 more" in text
    assert "organisation:ring" in text
    below = json.loads(run(home, capsys, "watch", "campaigns", "--below", "0.05", "--json"))
    assert (below["campaigns"], below["campaigns_total"]) == ([campaign], 2)
    monkeypatch.setattr(Installation, "server_status", lambda self: {"clients": []})
    assert main(["--home", str(home), "watch", "campaigns"]) == 2
