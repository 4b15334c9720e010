"""Reads of objects as access logs tell them: S3 server access logs, CloudTrail, and the lines of nginx and Apache.

Logs are written by others and may hold anything: lines that are none are passed over and counted, and nothing of them
is believed but when, who, and what was read.
"""

import gzip
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, cast
from urllib.parse import unquote

import msgspec

from palladion import files
from palladion.errors import FormatError

LINE_BYTES_MAX = 64 * 1024
DOCUMENT_BYTES_MAX = 256 * 1024 * 1024  # of a CloudTrail file, which is one document of some megabytes
LINES_MAX = 200_000_000
WHO_CHARACTERS_MAX = 120

_FIELD = r'(?:"(?:[^"\\]|\\.)*"|\[[^\]]*\]|[^\s"\[]\S*)'
_FIELDS = re.compile(_FIELD)
_TIME = re.compile(r"\[(\d{1,2})/([A-Z][a-z]{2})/(\d{4}):(\d\d):(\d\d):(\d\d) ([+-]\d{4})\]")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_WEB = re.compile(
    r'(?P<address>\S+) \S+ (?P<user>\S+) (?P<time>\[[^\]]+\]) "(?P<method>[A-Z]{3,8}) (?P<target>\S+)[^"]*" '
    r'(?P<status>\d{3}) \S+(?: "(?:[^"\\]|\\.)*" "(?P<agent>(?:[^"\\]|\\.)*)")?'
)
_ADDRESS = re.compile(r"\Ahttps?://[^/?]*", re.IGNORECASE)
_S3_READS = ("REST.GET.OBJECT", "REST.HEAD.OBJECT", "REST.COPY.OBJECT_GET", "REST.SELECT.OBJECT", "WEBSITE.GET.OBJECT")
_TRAIL_READS = frozenset(
    {"GetObject", "HeadObject", "CopyObject", "SelectObjectContent", "GetObjectAttributes", "GetObjectTorrent"}
)
_WEB_READS = frozenset({"GET", "HEAD", "POST"})


@dataclass(frozen=True)
class Reading:
    """One read of one object: `place` is s3://BUCKET/KEY, or the path of a web server; `who` is what the log names."""

    place: str
    at: datetime
    address: str
    agent: str
    who: str


@dataclass
class Log:
    """A log that is being read: how many lines were understood, and how many were none."""

    path: Path
    lines: int = 0
    others: int = 0

    def readings(self) -> Iterator[Reading]:
        """Every read of any object, in the order of the log. Raises FormatError, StorageError."""
        with files.storage_errors(self.path), self.path.open("rb") as raw:
            start = raw.read(2)
            raw.seek(0)
            stream = cast("IO[bytes]", gzip.GzipFile(fileobj=raw)) if start == b"\x1f\x8b" else raw
            try:
                first = stream.readline(LINE_BYTES_MAX)
                if first.lstrip().startswith(b"{"):
                    yield from self._trail(first, stream)
                else:
                    yield from self._lines(first, stream)
            except (EOFError, gzip.BadGzipFile) as error:
                raise FormatError(f"{self.path} is cut off or broken: {error}") from None

    def _lines(self, first: bytes, stream: IO[bytes]) -> Iterator[Reading]:
        line = first
        while line:
            self.lines += 1
            if self.lines > LINES_MAX:
                raise FormatError(f"{self.path} has more than {LINES_MAX} lines", "split it")
            found = _line(line.decode("utf-8", "replace").strip())
            if found is None:
                self.others += 1
            elif found.place:
                yield found
            line = stream.readline(LINE_BYTES_MAX)

    def _trail(self, first: bytes, stream: IO[bytes]) -> Iterator[Reading]:
        """One document with `Records`, as CloudTrail writes it, or an event a line, as others pass it on."""
        rest = stream.read(DOCUMENT_BYTES_MAX + 1)
        if len(rest) > DOCUMENT_BYTES_MAX:
            raise FormatError(f"{self.path} is larger than the {DOCUMENT_BYTES_MAX} bytes allowed", "split it")
        data = first + rest
        try:
            documents = [msgspec.json.decode(data)]
        except msgspec.DecodeError:
            documents = [_decoded(line) for line in data.splitlines()]
        for document in documents:
            events = document.get("Records", [document]) if isinstance(document, dict) else [document]
            for event in events if isinstance(events, list) else [events]:
                self.lines += 1
                found = _event(event)
                if found is None:
                    self.others += 1
                elif found.place:
                    yield found


def _decoded(line: bytes) -> Any:
    try:
        return msgspec.json.decode(line)
    except msgspec.DecodeError:
        return None


def _line(text: str) -> Reading | None:
    """A line of a log; one without a place is understood, and no read. None for what is no such line."""
    web = _WEB.match(text)
    if web is not None:
        at = _time(web["time"])
        if at is None:
            return None
        # a target may be a whole address, which servers take and log as it came (RFC 9112 §3.2.2)
        path = _unquoted(_ADDRESS.sub("", web["target"], count=1).partition("?")[0])
        place = path if web["method"] in _WEB_READS and path.startswith("/") else ""
        user = "" if web["user"] == "-" else web["user"]
        return Reading(place, at, _shown(web["address"]), _shown(web["agent"] or ""), _shown(user))
    return _s3_line(text)


def _s3_line(text: str) -> Reading | None:
    """Fields of S3 server access logs: owner, bucket, time, address, requester, request id, operation, key, …"""
    fields = [part.group() for part in _FIELDS.finditer(text)]
    if len(fields) < 9 or (at := _time(fields[2])) is None or "." not in fields[6]:
        return None
    bucket, address, requester, operation, key = fields[1], fields[3], fields[4], fields[6], fields[7]
    # the key is encoded once by who asks and once more by the log
    place = f"s3://{bucket}/{_unquoted(_unquoted(key))}" if operation in _S3_READS and key != "-" else ""
    agent = fields[16].strip('"') if len(fields) > 16 else ""
    return Reading(place, at, _shown(address), _shown(agent), _shown("" if requester == "-" else requester))


def _event(event: Any) -> Reading | None:
    if not isinstance(event, dict) or not isinstance(event.get("eventName"), str):
        return None
    try:
        at = datetime.fromisoformat(str(event.get("eventTime", ""))).astimezone(UTC)
    except ValueError:
        return None
    asked, identity = event.get("requestParameters"), event.get("userIdentity")
    asked = asked if isinstance(asked, dict) else {}
    identity = identity if isinstance(identity, dict) else {}
    place = ""
    if event["eventName"] in _TRAIL_READS:
        source = asked.get("x-amz-copy-source")
        if event["eventName"] == "CopyObject" and isinstance(source, str):
            place = f"s3://{_unquoted(source.partition('?')[0]).lstrip('/')}"
        elif asked.get("bucketName") and asked.get("key"):
            place = f"s3://{asked['bucketName']}/{asked['key']}"
    who = str(identity.get("arn") or identity.get("principalId") or identity.get("accountId") or "")
    agent = str(event.get("userAgent", ""))
    return Reading(place, at, _shown(str(event.get("sourceIPAddress", ""))), _shown(agent), _shown(who))


def _time(text: str) -> datetime | None:
    found = _TIME.fullmatch(text)
    if found is None or found[2] not in _MONTHS:
        return None
    day, month, year, hour, minute, second, zone = found.groups()
    number = _MONTHS.index(month) + 1
    try:
        return datetime.fromisoformat(f"{year}-{number:02}-{int(day):02}T{hour}:{minute}:{second}{zone}").astimezone(
            UTC
        )
    except (ValueError, OverflowError):
        return None


def _unquoted(text: str) -> str:
    return unquote(text, errors="replace")


def _shown(text: str) -> str:
    """What somebody else has written, in letters that may be printed anywhere, cut."""
    return "".join(letter if " " <= letter <= "~" else "?" for letter in text[:WHO_CHARACTERS_MAX])
