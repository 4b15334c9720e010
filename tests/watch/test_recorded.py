"""Lines of recorded traffic: what is one, what is none and why, and in which order they are taken."""

import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion.errors import FormatError
from palladion.watch import recorded
from palladion.watch.recorded import LINE_BYTES_MAX, NATIVE, ROWS_MAX, Recorded, in_order, layout_of, parse_line

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "traffic.md").read_text(encoding="utf-8")
LINE: dict[str, Any] = {"time": "2026-06-01T12:00:00Z", "client": "acme/web", "inputs": [[1, 2.5], [3, 4]]}
NOON = datetime(2026, 6, 1, 12, tzinfo=UTC).timestamp()
FOREIGN = layout_of(time="$.ts", client="$.user", inputs="$.request_body.instances", scores="$.answer.scores")


def parse(**changes: Any) -> Recorded | None:
    return parse_line(msgspec.json.encode(LINE | changes), 7)


def parsed(**changes: Any) -> Recorded:
    found = parse(**changes)
    assert found is not None
    return found


def test_a_line_is_a_request() -> None:
    found = parsed(
        organisation="acme",
        address="192.0.2.7",
        payment="visa",
        device="phone",
        tls="t13d",
        user="u1",
        model="fraud",
        route="/p",
        scores=[[0.5, 0.5]] * 2,
    )
    assert (found.line, found.at, found.client) == (7, NOON, "acme/web")
    assert found.inputs.tolist() == [[1.0, 2.5], [3.0, 4.0]]
    assert found.scores[""].tolist() == [[0.5, 0.5], [0.5, 0.5]]
    assert (found.organisation, found.address, found.payment, found.user) == ("acme", "192.0.2.7", "visa", "u1")
    assert (found.device, found.tls) == ("phone", "t13d")
    assert (found.model, found.route) == ("fraud", "/p")
    assert found.values == 8


@pytest.mark.parametrize(
    "time",
    [NOON, int(NOON), str(int(NOON)), f"{int(NOON)}.000", "2026-06-01T12:00:00+00:00", "2026-06-01T14:00:00.0+02:00"],
)
def test_a_time_is_rfc_3339_or_seconds(time: object) -> None:
    assert parsed(time=time).at == NOON


def test_outputs_are_numbers_by_name_and_labels_are_left_out() -> None:
    found = parsed(outputs={"p": [[0.5, 0.5]] * 2, "label": ["a", "b"], "none": [], "text": "x"})
    assert found.scores.keys() == {"p"}


def test_the_outputs_of_a_predict_answer_can_be_pasted() -> None:
    assert parsed(outputs={"probabilities": [[0.25, 0.75]]}).scores["probabilities"].shape == (1, 2)


@pytest.mark.parametrize("line", [b"", b"\n", b"  \r\n"])
def test_an_empty_line_is_nothing(line: bytes) -> None:
    assert parse_line(line, 1) is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"time": None}, "no time"),
        ({"time": "yesterday"}, "RFC 3339"),
        ({"time": "2026-06-01T12:00:00"}, "without the offset"),
        ({"time": 1780315200000}, "between 1970 and 2100"),
        ({"time": -1}, "between 1970 and 2100"),
        ({"time": True}, "no time"),
        ({"time": 10**400}, "no time"),
        ({"client": ""}, "names nobody"),
        ({"client": None}, "names nobody"),
        ({"client": "x" * 257}, "at most 256"),
        ({"client": {"a": 1}}, "no text"),
        ({"inputs": None}, "no inputs"),
        ({"inputs": []}, "0 rows"),
        ({"inputs": 5}, "0 rows"),
        ({"inputs": [[]]}, "1 rows"),
        ({"inputs": [["1"]]}, "something else than numbers"),
        ({"inputs": [[True]]}, "something else than numbers"),
        ({"inputs": [[1], [1, 2]]}, "several shapes"),
        ({"inputs": [[1], 2]}, "something else than numbers"),
        ({"inputs": [[[[[[1]]]]]]}, "nests more than"),
        ({"inputs": "no JSON"}, "a text that is not JSON"),
        ({"inputs": [[0]] * (ROWS_MAX + 1)}, f"{ROWS_MAX + 1} rows"),
        ({"scores": [["a"]]}, "something else than numbers"),
        ({"clients": "acme"}, "'clients' is none of"),
    ],
    ids=str,
)
def test_what_is_no_request_is_named_with_its_line(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(FormatError, match=f"^line 7 is no recorded request: .*{re.escape(reason)}"):
        parse(**changes)


@pytest.mark.parametrize(
    "line",
    [
        b"[1]",
        b"{",
        b'{"time": NaN}',
        b"\xff",
        b"[" * 5000,
        b'{"a":' * 3000,
        b'"' + b"x" * 100,
        b"{" + b" " * LINE_BYTES_MAX,
        msgspec.json.encode(LINE).replace(b"2.5", b"1e999"),
        msgspec.json.encode(LINE).replace(b"2.5", b"9" * 400),
    ],
    ids=lambda line: repr(line[:12]),
)
def test_hostile_lines_are_refused_and_nothing_else_happens(line: bytes) -> None:
    with pytest.raises(FormatError, match="line 3 is no recorded request"):
        parse_line(line, 3)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_are_refused(line: bytes) -> None:
    with suppress(FormatError):
        parse_line(line, 1)


@pytest.mark.slow
@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_any_json_in_any_place_is_a_request_or_is_refused(value: object) -> None:
    for name in (*LINE, "scores", "outputs", "organisation", "address", "payment", "device", "tls", "user"):
        with suppress(FormatError):
            parse(**{name: value})


def test_too_many_numbers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorded, "VALUES_MAX", 3)
    with pytest.raises(FormatError, match="holds 4 numbers, at most 3"):
        parse()


@pytest.mark.parametrize(
    "secret",
    [
        " Bearer abc",
        "acme/sk-0123456789abcdef",
        "Bearer abc",
        "Basic dXNlcg==",
        "pall_test_AbCdEfGhIjKlMnOp",
        "sk-proj-0123456789abcdef",
        "eyJhbGciOiJ9.x.y",
    ],
)
def test_a_credential_never_becomes_the_name_of_a_client(secret: str) -> None:
    one, same, other = (parsed(client=text).client for text in (secret, secret, secret + "x"))
    assert secret not in one
    assert one.startswith("credential:")
    assert one == same != other


def test_foreign_lines_are_read_where_their_places_are() -> None:
    body = msgspec.json.encode({"instances": [[1, 2]]}).decode()
    line = {"ts": NOON, "user": 17, "request_body": body, "answer": {"scores": [[1, 0]]}, "method": "POST"}
    found = parse_line(msgspec.json.encode(line), 1, FOREIGN)
    assert found is not None
    assert (found.at, found.client, found.inputs.tolist()) == (NOON, "17", [[1.0, 2.0]])
    assert found.scores[""].tolist() == [[1.0, 0.0]]


def test_foreign_lines_without_inputs_are_not_meant_for_the_model() -> None:
    for body in ("", "no JSON", '{"x": 1}', None):
        assert parse_line(msgspec.json.encode({"ts": "?", "request_body": body}), 1, FOREIGN) is None


def test_a_layout_needs_a_time_a_client_and_inputs() -> None:
    with pytest.raises(ValueError, match="need the place of inputs"):
        layout_of(time="$.t", client="$.c", inputs=None)
    assert layout_of(time="t", client="c", inputs="i").organisation is None
    assert not NATIVE.foreign


# --- order


def at(*times: float) -> Iterator[Recorded]:
    return (Recorded(number, time, "c", np.zeros((1, 1))) for number, time in enumerate(times, 1))


def test_requests_come_by_time_and_those_of_one_moment_as_they_were() -> None:
    assert [item.line for item in in_order(at(5, 1, 3, 1, 5))] == [2, 4, 3, 1, 5]


def test_what_is_too_late_is_refused_or_handed_out_where_it_came(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorded, "WAITING_MAX", 2)
    times = (10, 11, 12, 13, 1)
    with pytest.raises(FormatError, match="line 5 is of an earlier time"):
        list(in_order(at(*times)))
    assert [item.line for item in in_order(at(*times), strict=False)] == [1, 2, 5, 3, 4]


def test_little_waits_where_requests_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorded, "WAITING_VALUES_MAX", 2)
    taken: list[int] = []

    def counted() -> Iterator[Recorded]:
        for item in at(*range(10)):
            taken.append(item.line)
            yield item

    next(in_order(counted()))
    assert len(taken) == 3


# --- the page


def test_the_page_names_every_field() -> None:
    table = PAGE.partition("<!-- begin recorded -->\n")[2].partition("<!-- end recorded -->")[0]
    named = re.findall(r"^\| `(\w+)`", table, re.MULTILINE)
    assert set(named) == set(NATIVE.__dataclass_fields__) - {"foreign"}


def test_the_example_of_the_page_is_a_request() -> None:
    example = PAGE.partition("<!-- begin example -->\n")[2].partition("<!-- end example -->")[0]
    lines = [line for line in example.splitlines() if line.startswith("{")]
    assert lines
    assert all(parse_line(line.encode(), 1) for line in lines)


def test_the_limits_of_the_page_are_those_of_the_code() -> None:
    text = " ".join(PAGE.split())
    assert f"at most {LINE_BYTES_MAX >> 20} MiB, {ROWS_MAX:,} rows and {recorded.VALUES_MAX:,} numbers" in text
    assert f"{recorded.WAITING_MAX:,} lines" in text
