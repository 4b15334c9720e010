"""The surface of a service: other ways that answer, errors that talk, headers, and whether it wants a key."""

from pathlib import Path
from typing import Any

import pytest

from palladion.errors import FormatError
from palladion.redteam.audit.remote_subject import remote_subject
from palladion.redteam.audit.result import StageResult
from palladion.redteam.audit.stage import Allowance, Plan
from palladion.redteam.audit.surface import PATHS, SURFACE
from tests.redteam.audit.services import KEY, LABELS, ROWS, Asked, Reply, Service, scores
from tests.redteam.audit.subjects import subject

ALLOWED = Allowance(0, None, lambda done, total, stage="": None, lambda: 0.0)
REFUSED = Reply({"error": "what was asked is not understood"}, status=400)


def _strict(asked: Asked) -> Any:
    """A service that shows nothing: a key, one route, and errors that do not talk."""
    if asked.method == "GET":
        return Reply(status=404)
    if f"Bearer {KEY}" != asked.headers.get("authorization"):
        return Reply(status=401)
    try:
        ok = asked.rows.ndim == 2 and asked.rows.shape[1] == 3 and asked.rows.dtype.kind == "f"
    except (ValueError, KeyError, TypeError, RecursionError):
        ok = False
    return scores(asked) if ok else REFUSED


def _looked(tmp_path: Path, answer: Any, **api: Any) -> StageResult:
    with Service(answer).remote(tmp_path, **api) as remote:
        attacked = remote_subject(remote, ROWS, LABELS)
        remote.begin("surface")
        return SURFACE.run(attacked, Plan(), ALLOWED)


def _texts(result: StageResult) -> list[str]:
    assert all(seen.rule == "exposed-surface" for seen in result.observations)
    return [seen.text for seen in result.observations]


def test_a_service_that_shows_nothing_is_said_to_show_nothing(tmp_path: Path) -> None:
    found = _looked(tmp_path, _strict)
    assert _texts(found) == []
    assert [figure.value for figure in found.figures] == [0]
    assert len(PATHS) < found.queries < len(PATHS) + 20


def test_ways_that_answer_without_a_key_are_named(tmp_path: Path) -> None:
    def answer(asked: Asked) -> Any:
        if asked.path in {"/metrics", "/healthz", "/v2/models/theirs"}:
            return Reply({"open": True})
        return _strict(asked)

    texts = _texts(_looked(tmp_path, answer))
    assert [text.split()[1] for text in texts] == ["/metrics", "/v2/models/theirs"]


def test_a_service_that_says_the_same_everywhere_has_no_routes(tmp_path: Path) -> None:
    assert _texts(_looked(tmp_path, lambda asked: Reply("hello") if asked.method == "GET" else _strict(asked))) == []


@pytest.mark.parametrize(
    ("said", "what"),
    [
        ('Traceback (most recent call last):\n File "/srv/app.py"', "a stack trace"),
        ("cannot open /srv/models/fraud.onnx", "a path of its files"),
        ("[ONNXRuntimeError] : 2 : INVALID_ARGUMENT", "a library by name"),
        ("service 4.12.1 does not understand", "a version"),
    ],
)
def test_errors_that_talk_are_quoted(tmp_path: Path, said: str, what: str) -> None:
    def answer(asked: Asked) -> Any:
        found = _strict(asked)
        return Reply({"error": said}, status=400) if found is REFUSED else found

    texts = _texts(_looked(tmp_path, answer))
    assert len(texts) >= 5
    assert all(what in text for text in texts)


def test_a_service_that_breaks_is_told(tmp_path: Path) -> None:
    def answer(asked: Asked) -> Any:
        found = _strict(asked)
        return Reply(status=500) if found is REFUSED and b"null" in asked.body else found

    assert _texts(_looked(tmp_path, answer)) == ["it breaks with 500 on null"]


def test_a_service_that_answers_without_a_key_is_an_error(tmp_path: Path) -> None:
    def answer(asked: Asked) -> Any:
        changed = Asked(asked.method, asked.path, {"authorization": f"Bearer {KEY}"}, asked.body)
        return _strict(changed)

    found = _looked(tmp_path, answer)
    assert [(seen.level, seen.text) for seen in found.observations] == [("error", "the service answers without a key")]
    (tmp_path / "none").mkdir()
    assert _texts(_looked(tmp_path / "none", answer, key=None)) == ["the service asks for no key"]


def test_headers_with_versions_are_told_once(tmp_path: Path) -> None:
    def answer(asked: Asked) -> Any:
        found = _strict(asked)
        if isinstance(found, Reply) and found.status == 401:
            return Reply(status=401, headers={"server": "uvicorn/0.30.1", "x-powered-by": "PHP", "via": "proxy"})
        return found

    assert _texts(_looked(tmp_path, answer)) == [
        "the header server says 'uvicorn/0.30.1'",
        "the header x-powered-by says 'PHP'",
    ]


def test_what_cannot_be_read_is_passed_over_and_counted(tmp_path: Path) -> None:
    found = _looked(tmp_path, lambda asked: FormatError("a redirect") if asked.method == "GET" else _strict(asked))
    assert _texts(found) == []
    assert found.queries > len(PATHS)


def test_where_the_budget_ends_it_says_what_it_saw(tmp_path: Path) -> None:
    with Service(lambda asked: Reply(asked.path) if asked.method == "GET" else _strict(asked)).remote(
        tmp_path, budget=64 + 8 + 10
    ) as remote:
        found = SURFACE.run(remote_subject(remote, ROWS, LABELS), Plan(), ALLOWED)
    assert "budget" in found.reasons[0]
    assert found.queries == 10
    assert found.observations


def test_a_subject_without_either_is_skipped() -> None:
    assert SURFACE.missing(subject()) is not None
