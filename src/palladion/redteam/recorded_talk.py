"""What real clients of a language model asked, a request a line: lines of JSON → each client's requests in order.

The format is that of docs/traffic.md, "Recorded talk". Of conversations that are sent anew with each request, what is
new in each counts, as it does for the gate (`gate.chat.shown`).
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta

from palladion.errors import FormatError
from palladion.gate.chat.shown import SaidBefore
from palladion.redteam.prompts import TASK_PROMPTS_MIN, Prompts
from palladion.watch.lines import open_lines
from palladion.watch.recorded import LINE_BYTES_MAX, SECONDS_MAX
from palladion.watch.text.query import NOT_SAID, Conversation, Parameters, Query

TALK_BYTES_MAX = 1 << 30  # unpacked; all of it is held while it is calibrated on
TALK_CLIENTS_MAX = 100_000
MESSAGES_MAX = 2048
_SEPARATOR = "_"  # behind the source in the name of a task

_Name = Annotated[str, Meta(min_length=1, max_length=256)]
_Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
_Count = Annotated[int, Meta(ge=0, le=1 << 40)]


class _Message(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    role: _Name
    content: str


class _Line(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    time: float | str
    client: _Name
    text: str | None = None
    messages: Annotated[list[_Message], Meta(min_length=1, max_length=MESSAGES_MAX)] | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: _Seed | None = None
    n: _Count | None = None
    top_logprobs: _Count | None = None
    logit_bias: bool = False
    answer_chars: _Count | None = None
    failed: bool = False


@dataclass(frozen=True, eq=False)
class RecordedTalker:
    """One client: its name, and its requests in order of time."""

    client: str
    conversation: Conversation


def read_talk(path: Path) -> list[RecordedTalker]:
    """The clients of a file of recorded talk, gzipped or not, by name.

    Raises FormatError, with the number of the line, on a line that is no recorded request, StorageError on a file that
    cannot be read.
    """
    asked: defaultdict[str, list[tuple[float, _Line]]] = defaultdict(list)
    for number, raw in _lines(path):
        line = _parsed(raw, number)
        asked[line.client].append((_seconds(line.time, number), line))
        if len(asked) > TALK_CLIENTS_MAX:
            raise FormatError(f"line {number} has one client too many: at most {TALK_CLIENTS_MAX} are taken")
    if not asked:
        raise FormatError(f"{path} holds no recorded request", "docs/traffic.md says how one looks")
    return [RecordedTalker(client, _conversation(client, asked[client])) for client in sorted(asked)]


def prompts_of(talkers: Sequence[RecordedTalker]) -> Prompts:
    """What was asked as prompts to simulate clients with: of each client a task, of its organisation the source.

    Raises ValueError where nobody asked `TASK_PROMPTS_MIN` different texts.
    """
    tasks: dict[str, list[str]] = {}
    for number, talker in enumerate(talkers):
        if has_prompts(talker):
            texts = _texts(talker)
            source = talker.client.partition("/")[0].replace(_SEPARATOR, "-")
            tasks[f"{source}{_SEPARATOR}{number}"] = texts
    return Prompts(tasks)


def has_prompts(talker: RecordedTalker) -> bool:
    """Whether a client asked enough different texts to be a task of `prompts_of`."""
    return len(_texts(talker)) >= TASK_PROMPTS_MIN


def _texts(talker: RecordedTalker) -> list[str]:
    return list(dict.fromkeys(query.text for query in talker.conversation.queries))


def organisations_of(
    talkers: Sequence[RecordedTalker],
    count: int,
    members: int,
    queries: int,
    generator: np.random.Generator,
    *,
    correlation: float,
) -> Iterator[list[Conversation]]:
    """Organisations made up of recorded clients, because nobody records which accounts of a company act as one.

    Any two members are parts of one client's talk with the probability `correlation`, as long as that client asked
    enough for that, and otherwise talk of clients who have nothing to do with each other. Clients are drawn anew for
    each organisation.
    """
    (own,) = generator.spawn(1)
    shared = math.sqrt(correlation)  # both have to be
    for _ in range(count):
        common, *others = own.permutation(len(talkers)).tolist()
        used, found = 0, []
        for member in range(members):
            said = talkers[common].conversation.queries[used : used + queries]
            if own.random() < shared and len(said) == queries:
                used += queries
            else:
                said = talkers[others[member % len(others)]].conversation.queries[:queries]
            found.append(Conversation(said))
        yield found


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    size = number = 0
    with open_lines(path, BytesIO()) as source:
        while True:
            try:
                line = source.stream.readline(LINE_BYTES_MAX + 1)
            except (OSError, EOFError) as error:
                raise FormatError(f"{path} cannot be unpacked after line {number}: {error}") from None
            if not line:
                return
            number, size = number + 1, size + len(line)
            if len(line) > LINE_BYTES_MAX:
                raise FormatError(f"line {number} has more than {LINE_BYTES_MAX} bytes")
            if size > TALK_BYTES_MAX:
                raise FormatError(f"{path} has more than {TALK_BYTES_MAX} bytes up to line {number}")
            if line.strip():
                yield number, line


def _parsed(raw: bytes, number: int) -> _Line:
    try:
        line = msgspec.json.decode(raw, type=_Line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _wrong(number, str(error)) from None
    if (line.text is None) == (line.messages is None):
        raise _wrong(number, "it needs text, or messages, and not both")
    return line


def _seconds(time: float | str, number: int) -> float:
    if isinstance(time, str):
        try:
            moment = datetime.fromisoformat(time[:64])
        except ValueError:
            raise _wrong(number, f"time is {time[:40]!r}, RFC 3339 or seconds since 1970 were expected") from None
        if moment.tzinfo is None:
            raise _wrong(number, f"time is {time[:40]!r}, without the offset from UTC")
        time = moment.timestamp()
    if not 0 <= time <= SECONDS_MAX:
        raise _wrong(number, "time is no time between 1970 and 2100")
    return time


def _conversation(client: str, asked: list[tuple[float, _Line]]) -> Conversation:
    before = SaidBefore()
    queries = []
    for at, line in sorted(asked, key=lambda item: item[0]):
        text = line.text
        if text is None:
            # of the model's messages nothing
            said = [message.content for message in line.messages or () if message.role != "assistant"]
            text = before.newest(client, said)
        chars = NOT_SAID if line.answer_chars is None else float(line.answer_chars)
        parameters = Parameters(
            line.temperature, line.top_p, line.seed, line.n, line.top_logprobs, biased=line.logit_bias
        )
        queries.append(Query(text, parameters, at, chars, line.failed))
    return Conversation(queries)


def _wrong(number: int, what: str) -> FormatError:
    return FormatError(f"line {number} is no recorded talk: {what}", "docs/traffic.md says how it looks")
