"""Recorded talk: each client's requests in order, what is new in each, and nothing that cannot be read."""

import gzip
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from palladion.errors import FormatError
from palladion.redteam import recorded_talk
from palladion.redteam.recorded_talk import RecordedTalker, organisations_of, prompts_of, read_talk
from palladion.watch.text.query import DEFAULTS, Conversation, Parameters, Query

SEED = 4


def line(time: object = 10.0, client: str = "acme/web", **more: Any) -> dict[str, Any]:
    return {"time": time, "client": client, **(more or {"text": "Who was Hector?"})}


def written(path: Path, lines: list[Any]) -> Path:
    data = "\n".join(item if isinstance(item, str) else json.dumps(item) for item in lines).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("name", ["talk.jsonl", "talk.jsonl.gz"])
def test_clients_come_by_name_and_their_requests_by_time(tmp_path: Path, name: str) -> None:
    lines = [line(30, "b", text="third"), line("1970-01-01T01:00:20+01:00", "b", text="second"), "", line(5, "a")]

    one, other = read_talk(written(tmp_path / name, [*lines, line(1.5, "b", text="first")]))

    assert (one.client, [query.text for query in one.conversation.queries]) == ("a", ["Who was Hector?"])
    assert [(query.at, query.text) for query in other.conversation.queries] == [
        (1.5, "first"),
        (20.0, "second"),
        (30.0, "third"),
    ]


def test_of_conversations_what_is_new_counts_and_of_the_model_nothing(tmp_path: Path) -> None:
    first = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who?"}]
    later = [*first, {"role": "assistant", "content": "Hector."}, {"role": "user", "content": "Why?"}]

    (talker, other) = read_talk(
        written(tmp_path / "t", [line(1, messages=first), line(2, messages=later), line(3, "x", messages=later)])
    )

    assert [query.text for query in talker.conversation.queries] == ["Be brief.\nWho?", "Why?"]
    assert [query.text for query in other.conversation.queries] == ["Be brief.\nWho?\nWhy?"]


def test_parameters_and_what_became_of_a_request_are_read(tmp_path: Path) -> None:
    more = {"temperature": 0.5, "top_p": 0.9, "seed": 7, "n": 2, "top_logprobs": 5, "logit_bias": True}

    ((told,), (plain,)) = (
        talker.conversation.queries
        for talker in read_talk(
            written(tmp_path / "t", [line(1, "a", text="x", answer_chars=80, failed=True, **more), line(1, "b")])
        )
    )

    assert told == Query("x", Parameters(0.5, 0.9, 7, 2, 5, biased=True), 1.0, 80.0, failed=True)
    assert (plain.parameters, plain.failed) == (DEFAULTS, False)
    assert math.isnan(plain.answer_chars)


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        ("{", "line 2"),
        ("[]", "line 2"),
        (line(txt="a slip"), "txt"),
        (line(text="a", messages=[{"role": "user", "content": "b"}]), "not both"),
        ({"time": 1, "client": "a"}, "needs text"),
        (line("yesterday"), "RFC 3339"),
        (line("2026-01-01T00:00:00"), "without the offset"),
        (line(-1), "between 1970"),
        (line(1e300), "between 1970"),
        (line(True), "line 2"),
        (line(client=""), "line 2"),
        (line(client="x" * 300), "line 2"),
        (line(messages=[]), "line 2"),
        (line(text="a", n=-1), "line 2"),
        (line(text="a", seed=2**80), "line 2"),
        ("[" * 10_000, "line 2"),
    ],
    ids=str,
)
def test_a_line_that_cannot_be_used_is_refused_with_its_number(tmp_path: Path, broken: object, why: str) -> None:
    with pytest.raises(FormatError, match="line 2") as caught:
        read_talk(written(tmp_path / "t", [line(), broken]))

    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("name", "limit", "why"),
    [
        ("TALK_CLIENTS_MAX", 4, "line 5 has one client too many"),
        ("TALK_BYTES_MAX", 200, "more than 200 bytes up to line 4"),
        ("LINE_BYTES_MAX", 50, "line 1 has more than 50 bytes"),
    ],
)
def test_no_more_is_held_than_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, limit: int, why: str
) -> None:
    path = written(tmp_path / "t.gz", [line(client=str(number)) for number in range(5)])
    monkeypatch.setattr(recorded_talk, name, limit)

    with pytest.raises(FormatError, match=why):
        read_talk(path)


def test_a_file_of_nothing_or_half_a_file_is_no_talk(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="holds no recorded request"):
        read_talk(written(tmp_path / "t", [""]))
    (tmp_path / "half.gz").write_bytes(gzip.compress(json.dumps(line()).encode() * 500)[:-20])
    with pytest.raises(FormatError, match="cannot be unpacked"):
        read_talk(tmp_path / "half.gz")


def talkers(count: int, queries: int) -> list[RecordedTalker]:
    return [
        RecordedTalker(f"o{client % 3}_x/c{client}", Conversation([Query(f"{client} {at}") for at in range(queries)]))
        for client in range(count)
    ]


def test_each_client_is_a_task_of_its_organisation_and_who_said_little_none() -> None:
    few = RecordedTalker("few", Conversation([Query("a")] * 9 + [Query("b"), Query("c")]))

    prompts = prompts_of([*talkers(6, 5), few])

    assert len(prompts.names) == 6
    assert [len(source) for source in prompts.sources] == [2, 2, 2]
    assert prompts.tasks["o1-x_4"] == [f"4 {at}" for at in range(5)]
    with pytest.raises(ValueError, match="too few"):
        prompts_of([few])


@pytest.mark.parametrize("correlation", [0.0, 0.2, 1.0])
def test_members_of_an_organisation_are_of_one_client_as_often_as_was_asked(correlation: float) -> None:
    generator = np.random.default_rng(SEED)

    made = list(organisations_of(talkers(30, 40), 400, 2, 4, generator, correlation=correlation))

    pairs = [[member.queries[0].text.partition(" ")[0] for member in members] for members in made]
    assert np.mean([one == other for one, other in pairs]) == pytest.approx(correlation, abs=0.07), f"seed {SEED}"
    # no text twice in one organisation
    assert all(len({query.text for member in members for query in member.queries}) == 8 for members in made)


def test_a_client_who_said_too_little_is_not_divided() -> None:
    (members,) = organisations_of(talkers(5, 6), 1, 4, 4, np.random.default_rng(SEED), correlation=1.0)

    assert len({member.queries[0].text.partition(" ")[0] for member in members}) == 4


def between(mark: str) -> str:
    page = (Path(__file__).resolve().parents[2] / "docs" / "traffic.md").read_text(encoding="utf-8")
    return page.partition(f"<!-- begin {mark} -->")[2].partition(f"<!-- end {mark} -->")[0]


def test_the_example_of_the_page_can_be_read_and_all_fields_are_on_it(tmp_path: Path) -> None:
    (tmp_path / "t").write_text(between("talk").partition("```json\n")[2].partition("```")[0], encoding="utf-8")

    (talker,) = read_talk(tmp_path / "t")

    assert [query.text for query in talker.conversation.queries] == ["Who was Hector?", "Why?"]
    named = re.findall(r"^\| `(\w+)` \|", between("talk fields"), re.MULTILINE)
    assert named == list(recorded_talk._Line.__struct_fields__)
