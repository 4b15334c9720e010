"""Which settings a running gate takes over, what it refuses, and that it is one or the other."""

import asyncio
import re
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest

from palladion.access.cedar import Question
from palladion.errors import PolicyError, StorageError
from palladion.gate.operations.access import Access, open_access, read_digests
from palladion.gate.operations.policies import (
    FILES,
    RECORDED_MAX,
    VALUE_CHARACTERS_MAX,
    Policies,
    compare_files,
    recorded,
    restart_needed,
)
from palladion.ledger.record import Record, encode_record
from palladion.policy import Policy, RoutePolicy, load_policy, parse_policy
from palladion.policy.compare import Change, compare, digest
from palladion.policy.tensors import FixedPolicy, TensorPolicy
from tests.gate.gates import House

HERE = RoutePolicy(model="fraud")
CHAT = RoutePolicy(model="llm", protocol="openai", upstream="http://127.0.0.1:1")
THERE = RoutePolicy(model="spam", protocol="open-inference", upstream="http://127.0.0.1:1")
ALL = Policy(route=(HERE, CHAT, THERE))


def _restart(after: Policy, *, before: Policy = ALL, marking: bool = True) -> list[str]:
    return restart_needed(compare(before, after), before, after, marking=marking)


def _with(route: RoutePolicy, **changes: Any) -> Policy:
    changed = msgspec.structs.replace(route, **changes)
    return msgspec.structs.replace(ALL, route=tuple(changed if item is route else item for item in ALL.route))


@pytest.mark.parametrize(
    ("section", "changes"),
    [
        ("gate", {"body_bytes_max": 2048, "deadline_ms": 50, "requests_max": 9}),
        ("limits", {"queries_per_second": 1.0, "tokens_per_day": 5}),
        ("watch", {"degrade_after": 2, "alpha_watched": 0.02}),
        ("scan", {"file_bytes_max": 5}),
        ("operations", {"drain_seconds": 4, "log_every": 2, "trace_every": 2}),
        ("keys", {"escrow": ("a",)}),
    ],
)
def test_what_is_read_for_each_request_or_command_changes_live(section: str, changes: Mapping[str, Any]) -> None:
    after = msgspec.structs.replace(ALL, **{section: msgspec.structs.replace(getattr(ALL, section), **changes)})
    assert len(compare(ALL, after)) == len(changes)
    assert _restart(after) == []


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("installation", "directory", "elsewhere"),
        ("keys", "host_identity", "elsewhere"),
        ("registry", "url", "sqlite://"),
        ("ledger", "origin", "elsewhere"),
        ("gate", "listen", "127.0.0.1:1"),
        ("gate", "threads", 3),
        ("gate", "rows_max", 3),
        ("gate", "tls_key", "k"),
        ("retention", "queries", 1),
        ("operations", "listen", "127.0.0.1:1"),
        ("operations", "log", "json"),
        ("proxy", "user_header", "x-user"),
    ],
)
def test_what_is_opened_at_the_start_needs_a_restart(section: str, key: str, value: object) -> None:
    after = msgspec.structs.replace(ALL, **{section: msgspec.structs.replace(getattr(ALL, section), **{key: value})})
    assert _restart(after) == [f"{section}.{key}"]


@pytest.mark.parametrize(
    ("route", "changes"),
    [
        (HERE, {"mode": "enforce", "answer": "label", "decimals": 2, "top_k": 1, "scores_output": "x"}),
        (CHAT, {"mode": "enforce", "tokens_max": 5, "logprobs": "chosen", "reasoning": True}),
        (THERE, {"mode": "enforce", "answer": "label", "decimals": 2}),
    ],
)
def test_what_a_route_discloses_changes_live(route: RoutePolicy, changes: Mapping[str, Any]) -> None:
    assert _restart(_with(route, **changes)) == []


@pytest.mark.parametrize(
    ("route", "changes"),
    [
        (CHAT, {"upstream": "http://127.0.0.1:2", "engine": "vllm", "answer_seconds": 3, "upstream_model": "m"}),
        (THERE, {"upstream": "http://127.0.0.1:2", "upstream_key": "f", "scores_output": "p"}),
        (THERE, {"outputs": (TensorPolicy(name="p", type="int8", path="$[*]"),)}),
        (THERE, {"fixed": (FixedPolicy(path="$.a", value=1),)}),
    ],
)
def test_which_server_answers_a_route_changes_live(route: RoutePolicy, changes: Mapping[str, Any]) -> None:
    assert _restart(_with(route, **changes)) == []


@pytest.mark.parametrize(
    ("route", "changes", "named"),
    [
        (HERE, {"upstream": "http://127.0.0.1:2"}, "upstream"),
        (THERE, {"upstream": ""}, "upstream"),
        (CHAT, {"calibration": "ab"}, "calibration"),
        (CHAT, {"encoder": "e"}, "encoder"),
        (CHAT, {"tokenizer": "t"}, "tokenizer"),
    ],
)
def test_whether_a_model_runs_here_and_what_texts_are_judged_by_does_not(
    route: RoutePolicy, changes: Mapping[str, Any], named: str
) -> None:
    assert _restart(_with(route, **changes)) == [f"route[{route.route}].{named}"]


def test_routes_come_and_go_live_but_for_those_whose_texts_are_judged() -> None:
    for fewer in ((CHAT, THERE), (HERE,)):
        assert _restart(Policy(route=fewer)) == []
        assert _restart(ALL, before=Policy(route=fewer)) == []
    judged = _with(CHAT, calibration="ab")
    assert _restart(Policy(route=(HERE,)), before=judged) == [f"route[{CHAT.route}]"]
    assert _restart(judged, before=Policy(route=(HERE,))) == [f"route[{CHAT.route}]"]


def test_marks_need_a_restart_where_none_were_kept_before() -> None:
    marking = _with(HERE, flipped=0.01)
    assert _restart(marking) == []
    assert _restart(marking, marking=False) == [f"route[{HERE.route}].flipped"]


class _Running:
    """Policies over a house's file, which a test writes."""

    def __init__(self, house: House, tmp_path: Path) -> None:
        self.mine = house.copy(tmp_path)
        self.file = self.mine.installation.paths.policy
        self.text = self.file.read_text(encoding="utf-8")
        self.put(mode="observe")
        self.applied: list[tuple[Policy, Record]] = []
        self.access = Access()
        self.fails: Exception | None = None
        self.start()

    def name_access(self, name: str) -> None:
        """Start with a file of access policies."""
        self.text = self.text.replace("[access]\n", f'[access]\npolicies = "{name}"\n')
        self.put()
        self.start()

    def start(self) -> None:
        self.mine.installation.policy = load_policy(self.file)
        installation = self.mine.installation
        opened = open_access(installation.policy, installation.paths.home).digests
        self.policies = Policies(installation, check=self._check, apply=self._apply, marking=False, opened=opened)

    def put(self, *, mode: str = "observe", more: str = "") -> None:
        self.file.write_text(f'{self.text}\n{more}\n[[route]]\nmodel = "fraud"\nmode = "{mode}"\n', encoding="utf-8")

    def reload(self) -> list[Change]:
        return asyncio.run(self.policies.reload("user:test"))

    def _check(self, policy: Policy) -> None:
        if not policy.route:
            raise PolicyError("no routes")

    async def _apply(self, policy: Policy, record: Record, access: Access) -> None:
        if self.fails is not None:
            raise self.fails
        self.applied.append((policy, record))
        self.access = access
        self.mine.installation.policy = policy


@pytest.fixture
def running(house: House, tmp_path: Path) -> _Running:
    return _Running(house, tmp_path)


def test_a_file_that_says_the_same_changes_nothing(running: _Running) -> None:
    running.put(more="# a comment")
    assert running.reload() == []
    assert running.applied == []


def test_another_policy_is_recorded_by_name_with_both_digests(running: _Running) -> None:
    before = running.policies.digest
    running.put(mode="enforce")
    (change,) = running.reload()
    ((policy, record),) = running.applied
    assert (record.kind, record.actor) == ("policy.changed", "user:test")
    assert record.details == {"before": before, "after": digest(policy), "changes": [recorded(change)], "more": 0}
    assert running.policies.digest == digest(policy)
    assert running.policies.settings()["route"][0]["mode"] == "enforce"


@pytest.mark.parametrize("broken", ["[gate]\nrows = 1", "[gate]\nthreads = 7", "[gate]\nlisten = 5", "["])
def test_what_cannot_be_taken_over_is_refused_whole(running: _Running, broken: str) -> None:
    before = running.policies.digest
    running.put(mode="enforce", more=broken)
    with pytest.raises(PolicyError):
        running.reload()
    assert (running.applied, running.policies.digest) == ([], before)


def test_what_could_not_be_served_is_refused(running: _Running) -> None:
    running.file.write_text(running.text, encoding="utf-8")
    with pytest.raises(PolicyError, match="no routes"):
        running.reload()


def test_what_could_not_be_recorded_is_not_in_force_and_can_be_tried_again(running: _Running) -> None:
    before = running.policies.digest
    running.put(mode="enforce")
    running.fails = StorageError("the disk is full")
    with pytest.raises(StorageError):
        running.reload()
    assert running.policies.digest == before
    running.fails = None
    assert len(running.reload()) == 1


def test_a_command_is_told_what_changed(running: _Running) -> None:
    running.put(mode="enforce")
    reply = asyncio.run(running.policies.take_over("user:test"))
    assert reply.digest == running.policies.digest
    assert [(change["after"], change["live"]) for change in reply.changes] == [("enforce", True)]


ALL_MAY, NONE_MAY = "permit(principal, action, resource);", "forbid(principal, action, resource);"
QUESTION = Question("acme", "acme", "trusted", "api-key", "ask", "fraud", HERE.route)


def _access(running: _Running) -> Path:
    path = running.mine.installation.paths.home / "access.cedar"
    path.write_text(ALL_MAY, encoding="utf-8")
    running.name_access(path.name)
    return path


def test_another_content_of_the_file_of_access_policies_is_taken_over_and_recorded_once(running: _Running) -> None:
    access = _access(running)
    (was,) = running.policies.settings()[FILES].values()
    assert asyncio.run(running.policies.take_over("user:test")).changes == []
    access.write_text(NONE_MAY, encoding="utf-8")
    (change,) = asyncio.run(running.policies.take_over("user:test")).changes
    assert change == {
        "setting": "access.policies (access.cedar)",
        "before": was,
        "after": sha256(NONE_MAY.encode()).hexdigest(),
        "live": True,
    }
    ((_, record),) = running.applied
    assert record.details["before"] == record.details["after"] == running.policies.digest
    assert [item["setting"] for item in record.details["changes"]] == ["access.policies (access.cedar)"]
    assert running.access.cedar is not None
    assert not running.access.cedar.permits(QUESTION)
    assert running.reload() == []
    assert len(running.applied) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("permit(", "access.cedar:1: not Cedar"),
        (f'{ALL_MAY}\nforbid(principal, action, resource == Route::"/nowhere");', "access.cedar:2: there is no"),
        (None, "access.policies: "),
    ],
)
def test_access_policies_that_are_wrong_refuse_the_whole_reload(running: _Running, text: str | None, said: str) -> None:
    access = _access(running)
    before = running.policies.settings()
    running.put(mode="enforce")
    if text is None:
        access.unlink()
    else:
        access.write_text(text, encoding="utf-8")
    with pytest.raises(PolicyError, match=re.escape(said)):
        running.reload()
    assert (running.applied, running.policies.settings()) == ([], before)
    access.write_text(ALL_MAY, encoding="utf-8")
    assert [change.name for change in running.reload()] == ["route[/v1/models/fraud/predict].mode"]


def test_access_policies_can_come_and_go(running: _Running) -> None:
    text = running.text
    path = running.mine.installation.paths.home / "access.cedar"
    path.write_text(NONE_MAY, encoding="utf-8")
    running.text = text.replace("[access]\n", f'[access]\npolicies = "{path.name}"\n')
    running.put()
    assert [change.name for change in running.reload()] == ["access.policies"]
    assert running.access.cedar is not None
    running.text = text
    running.put()
    assert [change.name for change in running.reload()] == ["access.policies"]
    assert running.access == Access()


def test_a_route_that_access_policies_name_cannot_go(running: _Running) -> None:
    access = _access(running)
    running.put(more='[[route]]\nmodel = "fraud"\npath = "/second"\n')
    access.write_text('permit(principal, action, resource == Route::"/second");', encoding="utf-8")
    assert len(running.reload()) == 2
    running.put()
    with pytest.raises(PolicyError, match=r'there is no \[\[route\]\] for Route::"/second"'):
        running.reload()


def test_a_command_that_compares_is_told_what_the_files_were(running: _Running) -> None:
    access = running.mine.installation.paths.home / "access.cedar"
    access.write_text("permit(principal, action, resource);", encoding="utf-8")
    running.name_access(access.name)
    was = running.policies.settings()[FILES]
    assert was == read_digests(running.mine.installation.policy, running.mine.installation.paths.home)
    access.write_text("", encoding="utf-8")
    now = read_digests(running.mine.installation.policy, running.mine.installation.paths.home)
    assert [change.name for change in compare_files(was, now)] == ["access.policies (access.cedar)"]
    assert compare_files(was, {"access.policies (other.cedar)": "ab"}) == []


def test_a_contract_is_told_as_it_stands_in_the_file(running: _Running) -> None:
    running.put(more='[[contract]]\nclient = "acme"\nburst = 7\n')
    (change,) = asyncio.run(running.policies.take_over("user:test")).changes
    assert change["after"] == 'client = "acme", burst = 7'


def test_a_record_of_very_many_and_long_changes_still_fits(running: _Running) -> None:
    rows = "".join(f'[[contract]]\nclient = "a{number}/{"x" * 40}"\nburst = 7\n' for number in range(RECORDED_MAX + 50))
    running.put(more=rows)
    running.reload()
    ((_, record),) = running.applied
    assert (len(record.details["changes"]), record.details["more"]) == (RECORDED_MAX, 50)
    encode_record(record)


def test_values_that_are_long_are_cut() -> None:
    assert len(recorded(Change("a", "x" * 9999, None))["before"]) == VALUE_CHARACTERS_MAX + 1


def test_settings_come_back_as_the_same_policy(running: _Running) -> None:
    sent = msgspec.json.decode(msgspec.json.encode(running.policies.settings()))
    assert sent.pop(FILES) == {}
    assert compare(msgspec.convert(sent, Policy), running.mine.installation.policy) == []
    assert parse_policy(b"", "nothing") == Policy()
