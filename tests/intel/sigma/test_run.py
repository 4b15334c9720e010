"""Running rules: windows that move, groups, and the pack that ships."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from palladion.errors import FormatError, NotFoundError
from palladion.intel.sigma import run as module
from palladion.intel.sigma.rule import Rule
from palladion.intel.sigma.run import Match, kinds_of, load_rules, pack, run_rules
from palladion.ledger.record import Record
from tests.intel.sigma.test_rule import _parse, correlation, rule

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def _record(seconds: float, subject: str = "client:00", kind: str = "standing.changed", **details: object) -> Record:
    return Record(kind, NOW + timedelta(seconds=seconds), "watch", subject, dict(details))


def _run(rules: list[Rule], *records: Record) -> list[Match]:
    return list(run_rules(rules, enumerate(records)))


def test_a_rule_without_a_window_applies_to_each_record() -> None:
    found = _run([_parse(rule())], _record(0), _record(1, kind="answer.given"), _record(2))
    assert [match.entries for match in found] == [(0, 0), (2, 2)]
    assert found[0].group == ("watch", "client:00")


def test_a_window_counts_each_group_for_itself() -> None:
    window = _parse([rule(), correlation()])
    found = _run([window], _record(0, "a"), _record(1, "b"), _record(2, "a"), _record(3, "b"), _record(4, "a"))
    assert [(match.group, match.count, match.entries) for match in found] == [(("a",), 3, (0, 4))]
    assert (found[0].first, found[0].last) == (NOW, NOW + timedelta(seconds=4))


@pytest.mark.parametrize(("last", "matches"), [(599, 1), (600, 0), (601, 0)])
def test_what_is_older_than_the_window_does_not_count(last: float, matches: int) -> None:
    assert len(_run([_parse([rule(), correlation()])], _record(0), _record(1), _record(last))) == matches


def test_a_burst_is_few_alerts() -> None:
    found = _run([_parse([rule(), correlation()])], *[_record(number / 10) for number in range(30)])
    assert [match.entries for match in found] == [(start, start + 2) for start in range(0, 30, 3)]


def test_a_clock_that_was_set_back_hides_nothing() -> None:
    assert len(_run([_parse([rule(), correlation()])], _record(100), _record(-5000), _record(-4000))) == 1


def test_different_values_are_counted() -> None:
    told = correlation(type="value_count", condition={"gte": 3, "field": "details.to"})
    counted = _parse([rule(), told])
    assert _run([counted], *[_record(number, to="x") for number in range(50)]) == []
    values = [_record(number, to="x") for number in range(50)] + [_record(60, to="y"), _record(61, to="z")]
    (match,) = _run([counted], *values)
    assert (match.count, match.entries[1]) == (3, 51)
    late = [_record(0, to="x"), *[_record(500 + number, to="y") for number in range(50)], _record(601, to="z")]
    assert _run([counted], *late) == []


def test_a_record_is_in_the_group_of_each_value_of_a_list() -> None:
    told = correlation(**{"group-by": ["details.by.client"], "condition": {"gte": 2}})
    by = [{"client": "a"}, {"client": "b"}]
    found = _run([_parse([rule(), told])], _record(0, by=by), _record(1, by=by[1:]), _record(2))
    assert [match.group for match in found] == [("b",)]


def test_groups_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GROUPS_MAX", 2)
    window = _parse([rule(), correlation(condition={"gte": 2})])
    # a, b, c: a was quiet longest when c came
    assert _run([window], _record(0, "a"), _record(1, "b"), _record(2, "c"), _record(3, "a")) == []
    assert len(_run([window], _record(0, "a"), _record(1, "b"), _record(2, "c"), _record(3, "b"))) == 1
    crowd = correlation(**{"group-by": ["details.by"], "condition": {"gte": 2}})
    with pytest.raises(FormatError, match="more than 2 groups"):
        _run([_parse([rule(), crowd])], _record(0, by=["a", "b", "c"]))


FIRING: dict[str, tuple[list[Record], list[Record]]] = {
    "decoy-touched": ([_record(0, kind="decoy.touched")], [_record(0, kind="client.added")]),
    "drift": ([_record(0, kind="watch.drifted")], [_record(0, kind="watch.calibrated")]),
    "known-harvest": ([_record(0, kind="intel.hit")], [_record(0, kind="intel.refreshed")]),
    "key-from-many-networks": (
        [_record(n, kind="answer.given", network=f"n{n}") for n in range(20)],
        [_record(n, kind="answer.given", network=f"n{n % 19}") for n in range(200)]
        + [_record(4000 * n, kind="answer.given", network=f"m{n}") for n in range(1, 40)]
        + [_record(200_000 + n, kind="answer.given") for n in range(50)],
    ),
    "ledger-contradicted": ([_record(0, kind="ledger.contradicted")], [_record(0, kind="ledger.pruned")]),
    "many-listed-networks": (
        [_record(n, kind="intel.hit", indicator=f"i{n}") for n in range(5)],
        [_record(n, kind="intel.hit", indicator="same") for n in range(50)],
    ),
    "many-refusals": (
        [_record(60 * n, kind="answer.refused", reason="rate-limited") for n in range(20)],
        [_record(60 * n, kind="answer.refused", reason="busy") for n in range(50)],
    ),
    "suspension-burst": (
        [_record(n, f"client:{n}", to="suspended") for n in range(5)],
        [_record(900 * n, f"client:{n}", to="suspended") for n in range(50)],
    ),
}


@pytest.mark.parametrize("name", FIRING)
def test_each_rule_of_the_pack_applies_to_what_it_is_for_and_to_nothing_like_it(name: str) -> None:
    meant, alike = FIRING[name]
    listed = {"many-listed-networks": "networks", "known-harvest": "queries"}
    if name in listed:
        for record in [*meant, *alike]:
            record.details["kind"] = listed[name]
    rules = [pack()[name]]
    assert len(_run(rules, *meant)) == 1
    assert _run(rules, *alike) == []


def test_the_pack_is_whole() -> None:
    found = pack()
    assert set(found) == set(FIRING)
    assert len({item.id for item in found.values()}) == len(found)
    assert all(item.tags and item.description and item.kinds for item in found.values())
    assert kinds_of(found.values()) == tuple(sorted({kind for item in found.values() for kind in item.kinds}))
    assert kinds_of([*found.values(), _parse(rule("not selection"))]) == ()


def test_rules_come_from_the_pack_or_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yml"
    path.write_text('{"title": 1}')
    assert list(load_rules(["drift"])) == ["drift"]
    assert load_rules([]).keys() == pack().keys()
    with pytest.raises(FormatError, match=r"mine\.yml"):
        load_rules([str(path)])
    with pytest.raises(NotFoundError):
        load_rules(["drft"])


def test_other_tools_read_the_pack() -> None:
    yaml = pytest.importorskip("yaml")
    folder = Path(module.__file__).parent / "pack"
    for path in folder.glob("*.yml"):
        text = path.read_text()
        document = yaml.safe_load(text)
        first = document[0] if isinstance(document, list) else document
        assert first["logsource"] == {"product": "palladion", "category": "ml_inference"}
