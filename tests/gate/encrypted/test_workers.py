"""The places of workers, and the keys that they hold."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from palladion.gate.encrypted import frames
from palladion.gate.encrypted.workers import (
    REPLACED_AFTER,
    START,
    Keys,
    RefusedError,
    Workers,
    _places,
    _Process,
)


class _Child:
    returncode = None


def process(keys_bytes_max: int = 100) -> _Process:
    return _Process(_Child(), keys_bytes_max)  # type: ignore[arg-type]


@pytest.mark.parametrize("answered", [0, REPLACED_AFTER])
def test_whoever_is_interrupted_leaves_the_place_of_its_worker(answered: int, monkeypatch: pytest.MonkeyPatch) -> None:
    async def started(_: Workers) -> _Process:
        made = process()
        made.answered = answered
        return made

    async def interrupted(*_: object) -> None:
        raise asyncio.CancelledError

    async def evaluated(*_: object) -> list[bytes]:
        if answered:
            return []
        raise OSError("broken")

    monkeypatch.setattr(Workers, "_started", started)
    monkeypatch.setattr(Workers, "_end", interrupted)
    monkeypatch.setattr(_Process, "evaluate", evaluated)

    async def go() -> None:
        workers = Workers(b"", count=1, memory_bytes=1, answer_bytes_max=1)
        for _ in range(2):
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(workers.evaluate(None, "columns", []), 10)
        assert workers._idle.get_nowait() is None

    asyncio.run(go())


def test_a_worker_holds_keys_by_their_bytes_and_gets_refused_ones_again(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[int, bytes]] = []
    answer = (frames.ANSWER, [b""])

    async def send(_: _Process, kind: int, parts: Any) -> None:
        sent.append((kind, bytes(parts[0])))

    async def receive(*_: object) -> tuple[int, list[bytes]]:
        return answer

    monkeypatch.setattr(_Process, "send", send)
    monkeypatch.setattr(_Process, "receive", receive)
    held = process(keys_bytes_max=100)
    kept = {name: Keys(name, bytes(size), b"") for name, size in (("a", 60), ("b", 30), ("c", 60), ("d", 500))}

    def told(name: str) -> list[tuple[int, bytes]]:
        sent.clear()
        asyncio.run(held.evaluate(kept[name], frames.INTERLEAVED, [], 1))
        return sent[:-1]

    assert [told("a"), told("b"), told("a")] == [[(frames.KEYS, b"a")], [(frames.KEYS, b"b")], []]
    assert told("c") == [(frames.DROP, b"b"), (frames.DROP, b"a"), (frames.KEYS, b"c")]
    assert told("d") == [(frames.DROP, b"c"), (frames.KEYS, b"d")]
    answer = (frames.REFUSED, [b"no memory"])
    with pytest.raises(RefusedError):
        told("d")
    answer = (frames.ANSWER, [b""])
    assert told("d") == [(frames.KEYS, b"d")]


def test_a_worker_finds_what_the_gate_found_by_pythonpath(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # images of containers keep packages where Python by itself does not look
    package = tmp_path / "palladion" / "gate" / "encrypted"
    package.mkdir(parents=True)
    for folder in (package, package.parent, package.parent.parent):
        (folder / "__init__.py").touch()
    (package / "worker.py").write_text("def main(arguments):\n    print('found', *arguments)\n")
    monkeypatch.setattr(sys, "path", ["", "relative", str(Path.cwd()), str(tmp_path)])
    assert _places() == [str(tmp_path)]
    # the standard library is where the gate has it as well
    monkeypatch.undo()
    places = json.dumps([str(tmp_path), *_places()])
    command = [sys.executable, "-I", "-c", START, places, "1", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("found 1 2\n", "")
