"""The report: the same bytes for the same audit but for its times."""

from datetime import UTC, datetime
from typing import Any

import pytest

from palladion.errors import FormatError
from palladion.policy import RedteamPolicy
from palladion.redteam.audit.bars import Bar, compare, judge
from palladion.redteam.audit.document import bars_of, decode_document, encode_document, report_document
from palladion.redteam.audit.last_layer import text_subject
from palladion.redteam.audit.stage import Plan
from tests.redteam.audit.subjects import done, figure, subject

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def report(seconds: float = 2.0, value: float = 0.9) -> dict[str, Any]:
    """A report of one stage whose bar is .8, and whose figure was .5 before."""
    results = [done("extraction", figure("extraction.fidelity", value, value - 0.05, value + 0.05), queries=7)]
    judged = judge([Bar("extraction.fidelity", 0.8)], results)
    worse = compare([figure("extraction.fidelity", 0.5, 0.45, 0.55)], results)
    return report_document(
        subject(), Plan(seed=3), results, judged, worse, started=NOW, seconds=seconds, program="palladion 0.1.0"
    )


def test_only_times_differ() -> None:
    first, second = report(2.0), report(3.0)
    assert first != second
    del first["times"], second["times"]
    assert encode_document(first) == encode_document(second)


def test_it_says_what_was_attacked_and_what_came_of_it() -> None:
    found = report()
    assert found["subject"] | {"digest": ""} == {
        "name": "fraud@1",
        "digest": "",
        "service": False,
        "doors": [{"name": "undefended", "answers": "all"}, {"name": "degraded", "answers": "label"}],
        "deployed": "undefended",
        "rows": 40,
        "inputs": 3,
        "classes": 2,
        "labels": True,
        "training": 0,
    }
    assert (found["verdict"], found["queries"], len(found["regressions"])) == ("fail", 7, 1)


def test_what_got_no_worse_is_not_listed() -> None:
    assert report(value=0.5)["regressions"] == []
    assert report(value=0.5)["verdict"] == "pass"


def test_it_is_read_back() -> None:
    assert decode_document(encode_document(report()), what="it") == report()


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"format":"palladion-audit-2"}'])
def test_what_is_no_report_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError, match=r"^it is no"):
        decode_document(data, what="it")


def test_bars_hold_at_the_door_that_clients_get() -> None:
    policy = RedteamPolicy(extraction_fidelity=0.9, extraction_queries=500, membership_auc=0.6)
    assert bars_of(policy, subject(deployed="degraded")) == (
        Bar("extraction.fidelity.500.degraded", 0.9),
        Bar("membership.auc.degraded", 0.6),
    )
    assert bars_of(RedteamPolicy(), subject()) == ()


def test_students_of_texts_have_a_bar_at_language_models_alone() -> None:
    policy = RedteamPolicy(distillation_gain=0.2, distillation_queries=100)
    texts = text_subject("text@1", "ab" * 32, {"deployed": "texts"}, "deployed")
    assert bars_of(policy, texts) == (Bar("distillation.gain.100.deployed", 0.2),)
    assert bars_of(policy, subject()) == ()
