"""Server-sent events (WHATWG HTML §9.2): bytes of a stream → the data of its events, and back. Pure.

Only `data` is read: names and ids of events are not part of the API of OpenAI, where the data says what it is.
"""

from palladion.errors import FormatError

EVENT_BYTES_MAX = 1024 * 1024  # one token takes some 300 bytes; a last event can repeat a whole answer
MEDIA_TYPE = b"text/event-stream"
DONE = b"[DONE]"  # the data that ends a stream
_END = b"\n\n"
_DATA = b"data: "


class EventReader:
    """Reads one stream: `feed` it what comes."""

    def __init__(self, *, event_bytes_max: int = EVENT_BYTES_MAX) -> None:
        self._event_bytes_max = event_bytes_max
        self._rest = bytearray()  # of an event that is not complete
        self._after_return = False

    def feed(self, part: bytes) -> list[bytes]:
        """The data of the events that are complete now, in order. Raises FormatError on one that is too long."""
        if self._after_return or b"\r" in part:
            part = self._with_line_feeds(part)
        elif (
            not self._rest
            and part.startswith(_DATA)
            and part.endswith(_END)
            and part.find(b"\n") == len(part) - len(_END)
        ):
            # engines send event by event, and each comes alone where nothing is late
            self._check(len(part) - len(_END))
            data = part[len(_DATA) : -len(_END)]
            return [data] if data else []
        if self._rest:
            # looked for where it can be new: else a stream that comes byte by byte costs the square of its length
            searched = max(0, len(self._rest) - 1)
            self._rest += part
            if self._rest.find(_END, searched) < 0:
                self._check(len(self._rest))
                return []
            part = bytes(self._rest)
            self._rest.clear()
        *events, rest = part.split(_END)
        if rest:
            self._check(len(rest))
            self._rest += rest
        found = []
        for event in events:
            if len(event) > self._event_bytes_max:
                self._check(len(event))
            data = event[len(_DATA) :] if event.startswith(_DATA) and b"\n" not in event else _data(event)
            if data:
                found.append(data)
        return found

    def _with_line_feeds(self, part: bytes) -> bytes:
        """The same with one way to end a line; a line end can be cut in two between parts."""
        if self._after_return and part.startswith(b"\n"):
            part = part[1:]
            self._after_return = False
        if part:
            self._after_return = part.endswith(b"\r")
        return part.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _check(self, length: int) -> None:
        if length > self._event_bytes_max:
            raise FormatError(f"an event has more than {self._event_bytes_max} bytes")


def _data(event: bytes) -> bytes:
    lines = []
    for line in event.split(b"\n"):
        name, _, value = line.partition(b":")
        if name == b"data":
            lines.append(value.removeprefix(b" "))
    return b"\n".join(lines)


def event(data: bytes, *, name: bytes = b"") -> bytes:
    """An event of one line of data."""
    return b"event: %b\ndata: %b\n\n" % (name, data) if name else b"data: %b\n\n" % data


def comment(text: bytes) -> bytes:
    """A line that readers pass over."""
    return b": %b\n\n" % text
