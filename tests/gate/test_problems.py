"""Problems: RFC 9457 in form, and nothing in them that the client did not send."""

import json
from pathlib import Path

import pytest

from palladion.gate.problems import PROBLEMS, Problem


def test_the_page_lists_every_kind_and_no_other() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "gate.md").read_text(encoding="utf-8")
    table = page.partition("<!-- begin problems -->\n")[2].partition("<!-- end problems -->")[0]
    expected = [f"| `{kind}` | {status} | {title} |" for kind, (status, title) in PROBLEMS.items()]
    assert table.strip().splitlines()[2:] == expected


@pytest.mark.parametrize("kind", PROBLEMS)
def test_every_kind_is_a_problem_document_with_its_status(kind: str) -> None:
    problem = Problem(kind)
    document = json.loads(problem.body())
    assert document == {"type": f"urn:palladion:problem:{kind}", "title": PROBLEMS[kind][1], "status": problem.status}
    assert 400 <= problem.status <= 599


def test_detail_and_field_are_there_when_they_say_something() -> None:
    document = json.loads(Problem("bad-input", "too long", field="inputs[3]").body())
    assert (document["detail"], document["field"]) == ("too long", "inputs[3]")


def test_a_kind_that_is_none_is_a_mistake_of_ours() -> None:
    with pytest.raises(KeyError):
        Problem("no-such-kind")


@pytest.mark.parametrize(("seconds", "shown"), [(0.001, b"1"), (1, b"1"), (1.2, b"2"), (59.5, b"60")])
def test_the_time_to_wait_is_rounded_up_so_that_coming_back_then_is_right(seconds: float, shown: bytes) -> None:
    assert Problem("rate-limited", retry_after_seconds=seconds).headers() == [(b"retry-after", shown)]


def test_who_is_not_known_is_told_how_to_say_it() -> None:
    assert Problem("unauthenticated").headers() == [(b"www-authenticate", b"Bearer")]


def test_a_wrong_method_is_told_which_are_right() -> None:
    assert Problem("method-not-allowed", allow="GET").headers() == [(b"allow", b"GET")]


def test_text_of_the_client_cannot_become_a_header_or_break_the_document() -> None:
    text = 'x"\r\nset-cookie: a=b\x00\u2028'
    problem = Problem("bad-input", text, field=text)
    assert problem.headers() == []
    assert json.loads(problem.body())["detail"] == text
    assert b"\r" not in problem.body()
    assert b"\n" not in problem.body()
