"""Fuzzes server-sent events: `python -m tests.gate.hostile.fuzz.fuzz_events -max_total_time=60`.

The first byte of an input says into how large parts the rest is cut; how it is cut must not matter.
"""

from collections.abc import Iterable
from pathlib import Path

from tests.seal.fuzz.run import fuzz, instrumented

with instrumented(__name__):
    from palladion.errors import FormatError
    from palladion.gate.chat.events import EventReader, event

CORPUS = Path(__file__).parent / "corpus" / "events"
EVENT_BYTES_MAX = 256


def one_input(data: bytes) -> None:
    """The events of a stream are the same in whole, byte by byte and in parts, and can be written anew."""
    step, rest = 1 + (data[0] if data else 0), data[1:]
    whole = _read([rest])
    found = [whole, _read(rest[at : at + 1] for at in range(len(rest)))]
    found.append(_read(rest[at : at + step] for at in range(0, len(rest), step)))
    if any(events is None for events in found):
        # the line ends of an event count where it is not complete yet
        assert len(rest) >= EVENT_BYTES_MAX - 2
        return
    assert found[0] == found[1] == found[2]
    for item in whole or ():
        assert 0 < len(item) <= EVENT_BYTES_MAX
        assert b"\r" not in item
        if b"\n" not in item:
            assert EventReader().feed(event(item)) == [item]


def _read(parts: Iterable[bytes]) -> list[bytes] | None:
    """The data of the events; None where one is too long."""
    reader = EventReader(event_bytes_max=EVENT_BYTES_MAX)
    try:
        return [item for part in parts for item in reader.feed(part)]
    except FormatError:
        return None


if __name__ == "__main__":
    fuzz(one_input, str(CORPUS))
