"""Prompts by task: read from a file, halved without a text in common, dealt out without repeats."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from palladion.errors import FormatError
from palladion.redteam import prompts as module
from palladion.redteam.prompts import TASK_PROMPTS_MIN, Deck, Prompts, read_prompts

TEXTS = {f"{source}_{task}": [f"{source} {task} text {number}. Say {number}!" for number in range(6)]
         for source in ("imdb", "news", "law") for task in ("a", "b")}  # fmt: skip


def made() -> Prompts:
    return Prompts(TEXTS)


def every(prompts: Prompts) -> set[str]:
    return {text for texts in prompts.tasks.values() for text in texts}


def written(folder: Path, lines: list[object]) -> Path:
    path = folder / "prompts.jsonl.gz"
    data = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    path.write_bytes(gzip.compress(data.encode()))
    return path


def test_tasks_over_one_source_belong_together() -> None:
    prompts = made()
    named = [{prompts.names[task] for task in source} for source in prompts.sources]

    assert {"imdb_a", "imdb_b"} in named
    assert len(named) == 3


def test_halves_have_all_tasks_and_no_text_in_common() -> None:
    one, other = made().halves()

    assert one.names == other.names == made().names
    assert every(one) | every(other) == every(made())
    assert not every(one) & every(other)


def test_a_split_parts_sources() -> None:
    one, other = made().split(np.random.default_rng(1))

    assert {name.partition("_")[0] for name in one.names}.isdisjoint(name.partition("_")[0] for name in other.names)
    assert sorted([*one.names, *other.names]) == made().names
    assert (len(one.sources), len(other.sources)) == (2, 1)
    again, _ = made().split(np.random.default_rng(1))
    assert again.names == one.names


def test_a_deck_deals_no_prompt_twice_before_all_were_dealt() -> None:
    deck, texts = Deck(made(), np.random.default_rng(2)), TEXTS["imdb_a"]
    task = made().names.index("imdb_a")
    dealt = [deck.draw(task) for _ in texts]

    assert sorted(dealt) == sorted(texts)
    assert dealt != list(texts)


def test_after_that_pieces_of_two_prompts_of_the_task_are_put_together() -> None:
    prompts = made()
    task = prompts.names.index("law_b")
    pieces = {piece for text in TEXTS["law_b"] for piece in (text.partition(". ")[0] + ".", text.partition(". ")[2])}
    generator = np.random.default_rng(3)
    recombined = [prompts.recombined(task, generator) for _ in range(40)]

    for text in recombined:
        first, _, second = text.partition(". ")
        assert {first + ".", second} <= pieces
    assert set(recombined) - set(TEXTS["law_b"])


def test_a_file_is_read_and_short_tasks_are_left_out(tmp_path: Path) -> None:
    lines: list[object] = [{"task": "long", "prompt": f"text {number}"} for number in range(TASK_PROMPTS_MIN)]
    lines += [{"task": "short", "prompt": "text"}] * (TASK_PROMPTS_MIN - 1)

    assert read_prompts(written(tmp_path, lines)).names == ["long"]


@pytest.mark.parametrize(
    "line", ["{", "[]", "17", {"task": "a"}, {"task": 1, "prompt": "a"}, {"task": "a", "prompt": None}]
)
def test_a_line_of_another_form_is_refused_with_its_number(tmp_path: Path, line: object) -> None:
    path = written(tmp_path, [{"task": "a", "prompt": "b"}, line])
    with pytest.raises(FormatError, match="line 2"):
        read_prompts(path)


def test_a_file_need_not_be_compressed(tmp_path: Path) -> None:
    path = tmp_path / "plain.jsonl"
    path.write_text('{"task": "a", "prompt": "b"}\n' * TASK_PROMPTS_MIN)

    assert read_prompts(path).tasks == {"a": ["b"] * TASK_PROMPTS_MIN}


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-9], lambda data: data[:12] + b"\xff" * 30, lambda data: data[:2]]
)
def test_a_damaged_archive_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = written(tmp_path, [{"task": "a", "prompt": "b"}] * 9)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(FormatError, match="not a gzipped file"):
        read_prompts(path)


def test_a_file_without_tasks_or_with_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FormatError, match=f"no task with {TASK_PROMPTS_MIN}"):
        read_prompts(written(tmp_path, []))
    monkeypatch.setattr(module, "FILE_BYTES_MAX", 100)
    with pytest.raises(FormatError, match="more than"):
        read_prompts(written(tmp_path, ["x" * 200]))


def test_tasks_that_cannot_be_drawn_from_are_refused() -> None:
    for tasks in ({}, {"a": ["one"]}):
        with pytest.raises(ValueError, match="too few"):
            Prompts(tasks)
