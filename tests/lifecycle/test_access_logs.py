"""Reads of objects in the logs of S3, CloudTrail and web servers; what is none is counted and passed over."""

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from palladion.errors import FormatError
from palladion.lifecycle import access_logs
from palladion.lifecycle.access_logs import Log, Reading

AT = datetime(2026, 6, 1, 12, 0, 5, tzinfo=UTC)
S3 = (
    "79a5 models [01/Jun/2026:14:00:05 +0200] 192.0.2.7 arn:aws:iam::123:user/eve 3E57427F3EXAMPLE {operation} "
    '{key} "GET /models/x HTTP/1.1" 200 - 4406 4406 41 8 "-" "aws-cli/2.1 (linux)" - host sig cipher host TLS\n'
)
NGINX = '192.0.2.9 - eve [01/Jun/2026:12:00:05 +0000] "{method} {path} HTTP/1.1" 200 612 "-" "curl/8.1"\n'
TRAIL = {
    "eventTime": "2026-06-01T12:00:05Z",
    "eventName": "GetObject",
    "sourceIPAddress": "192.0.2.8",
    "userAgent": "boto3",
    "userIdentity": {"arn": "arn:aws:sts::123:assumed-role/x"},
    "requestParameters": {"bucketName": "models", "key": "prod/m v1.sealed"},
}


def _read(tmp_path: Path, data: str | bytes) -> tuple[list[Reading], Log]:
    path = tmp_path / "log"
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    log = Log(path)
    return list(log.readings()), log


@pytest.mark.parametrize("key", ["prod/m%2520v1.sealed", "prod/m%20v1.sealed"])
def test_a_line_of_s3_is_read(tmp_path: Path, key: str) -> None:
    (reading,), _ = _read(tmp_path, S3.format(operation="REST.GET.OBJECT", key=key))
    assert reading == Reading(
        "s3://models/prod/m v1.sealed", AT, "192.0.2.7", "aws-cli/2.1 (linux)", "arn:aws:iam::123:user/eve"
    )


@pytest.mark.parametrize(
    ("operation", "count"),
    [("REST.HEAD.OBJECT", 1), ("REST.COPY.OBJECT_GET", 1), ("REST.PUT.OBJECT", 0), ("REST.GET.BUCKET", 0)],
)
def test_only_reads_of_objects_count(tmp_path: Path, operation: str, count: int) -> None:
    readings, log = _read(tmp_path, S3.format(operation=operation, key="a"))
    assert (len(readings), log.lines, log.others) == (count, 1, 0)


@pytest.mark.parametrize("before", ["http://files.example", "HTTPS://files.example:8443"])
def test_a_whole_address_is_read_as_its_path(tmp_path: Path, before: str) -> None:
    (reading,), _ = _read(tmp_path, NGINX.format(method="GET", path=f"{before}/files/m%20v1.sealed?x=1"))
    assert reading.place == "/files/m v1.sealed"


def test_lines_of_nginx_are_read(tmp_path: Path) -> None:
    lines = NGINX.format(method="GET", path="/files/m%20v1.sealed?x=1") + NGINX.format(method="PUT", path="/files/m")
    (reading,), log = _read(tmp_path, lines)
    assert reading == Reading("/files/m v1.sealed", AT, "192.0.2.9", "curl/8.1", "eve")
    assert log.others == 0


@pytest.mark.parametrize("form", ["records", "lines", "gzip"])
def test_events_of_cloudtrail_are_read(tmp_path: Path, form: str) -> None:
    copied = {
        **TRAIL,
        "eventName": "CopyObject",
        "requestParameters": {"bucketName": "mine", "key": "x", "x-amz-copy-source": "models/prod/m%20v1.sealed"},
    }
    listed = {**TRAIL, "eventName": "ListObjects"}
    events = [TRAIL, copied, listed]
    text = "\n".join(map(json.dumps, events)) if form == "lines" else json.dumps({"Records": events})
    readings, log = _read(tmp_path, gzip.compress(text.encode()) if form == "gzip" else text)
    assert [reading.place for reading in readings] == ["s3://models/prod/m v1.sealed"] * 2
    assert readings[0].who == "arn:aws:sts::123:assumed-role/x"
    assert (log.lines, log.others) == (3, 0)


@pytest.mark.parametrize(
    "text",
    [
        "nonsense\n",
        "\n",
        S3.format(operation="REST.GET.OBJECT", key="a").replace("Jun", "Jux"),
        NGINX.format(method="GET", path="/x").replace("01/Jun", "45/Jun"),
        '{"eventName": 5}',
        '{"eventName": "GetObject", "eventTime": "yesterday"}',
        '{"Records": [7, null, "x"]}',
        "{broken",
    ],
)
def test_what_is_no_line_of_a_log_is_counted(tmp_path: Path, text: str) -> None:
    readings, log = _read(tmp_path, text)
    assert readings == []
    assert log.others == log.lines > 0


def test_what_others_wrote_is_cut_and_printable(tmp_path: Path) -> None:
    agent = "\x1b[31mred" + "x" * 500
    line = NGINX.format(method="GET", path="/x").replace("curl/8.1", agent)
    (reading,), _ = _read(tmp_path, line)
    assert reading.agent.startswith("?[31mred")
    assert len(reading.agent) == access_logs.WHO_CHARACTERS_MAX


def test_logs_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_logs, "LINES_MAX", 2)
    with pytest.raises(FormatError, match="more than 2 lines"):
        _read(tmp_path, "x\n" * 3)
    monkeypatch.setattr(access_logs, "DOCUMENT_BYTES_MAX", 10)
    with pytest.raises(FormatError, match="larger than"):
        _read(tmp_path, '{"a": 1}\n' * 9)


def test_a_log_that_is_cut_off_is_an_error(tmp_path: Path) -> None:
    lines = "".join(NGINX.format(method="GET", path=f"/{index}") for index in range(900))
    with pytest.raises(FormatError, match="cut off"):
        _read(tmp_path, gzip.compress(lines.encode())[:-20])


def test_a_long_line_does_not_fill_the_memory(tmp_path: Path) -> None:
    readings, log = _read(
        tmp_path, "x" * (3 * access_logs.LINE_BYTES_MAX) + "\n" + NGINX.format(method="GET", path="/x")
    )
    assert len(readings) == 1
    assert log.others >= 3
