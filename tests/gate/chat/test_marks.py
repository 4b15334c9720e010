"""Marks in text: no request gets round them, and a key is on record before it marks anything."""

import asyncio
import json
from datetime import timedelta
from typing import Any

import pytest

from palladion.gate.chat.marks import TextMarks
from palladion.ledger.record import Record
from palladion.lifecycle.text import PURPOSE
from palladion.mark.text.engines import engine_key
from palladion.mark.text.gumbel import text_key
from tests.gate.gates import House
from tests.lifecycle.installations import NOW

from .talking import HELLO, Talk, run, talking

ASK = {"model": "m", "temperature": 0.0, "messages": []}


def _marked(
    marks: TextMarks, records: list[Record], *, tenant: str = "client:a", later_days: int = 0
) -> dict[str, Any]:
    async def record(item: Record) -> None:
        records.append(item)

    return asyncio.run(marks.marked(ASK, tenant, NOW + timedelta(days=later_days), record))


@pytest.mark.parametrize("engine", ["vllm", "tensorrt-llm"])
def test_engines_with_one_key_are_asked_for_marked_text_and_need_no_record(house: House, engine: Any) -> None:
    records: list[Record] = []
    marked = _marked(TextMarks(engine, house.root), records)
    assert marked["temperature"] > 0
    assert marked.get("watermarking") is (True if engine == "vllm" else None)
    assert records == []


def test_each_client_and_month_has_a_key_that_is_recorded_once(house: House) -> None:
    records: list[Record] = []
    marks = TextMarks("sglang", house.root)
    keys = [
        _marked(marks, records, tenant=tenant, later_days=days)["watermark"]["key"]
        for tenant, days in (("client:a", 0), ("client:a", 1), ("client:b", 0), ("client:a", 40))
    ]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3
    assert [(item.kind, item.subject, item.details["engine"]) for item in records] == [
        ("text.key-given", tenant, "sglang") for tenant in ("client:a", "client:b", "client:a")
    ]
    # as `prove text` makes it again from the record
    first = records[0]
    again = engine_key(text_key(house.root.derive(PURPOSE), first.subject, first.details["epoch"]))
    assert keys[0] == f"{again:016x}"


def test_what_a_client_asks_goes_to_the_engine_marked(house: House) -> None:
    async def test() -> None:
        async with talking(house, engine="vllm", extra_fields=["top_k"]) as talk:
            await talk.ask({**HELLO, "temperature": 0, "top_k": 1})
            (sent,) = talk.engine.asked
            assert sent["watermarking"] is True
            assert sent["temperature"] > 0
            assert sent["top_k"] > 1

    run(test)


def test_nothing_is_asked_under_a_key_that_could_not_be_recorded(house: House) -> None:
    async def test() -> None:
        async with talking(house, engine="sglang") as talk:
            talk.bench.journal.error = _broken()
            response = await talk.ask()
            assert _kind(response.body) == "unrecorded"
            assert talk.engine.asked == []
            talk.bench.journal.error = None
            await talk.ask()
            assert talk.bench.kinds == ["text.key-given", "answer.given"]
            assert _tenant(talk) == talk.bench.gate.stages.name(house.ids["acme"])

    run(test)


def _broken() -> Exception:
    from palladion.errors import StorageError

    return StorageError("the disk is full")


def _kind(body: bytes) -> str:
    return str(json.loads(body)["type"]).removeprefix("urn:palladion:problem:")


def _tenant(talk: Talk) -> str:
    return talk.bench.journal.records[0].subject
