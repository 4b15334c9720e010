"""S3, by moto's server: presigned ranges, parts that are resumed, conditions that the store itself keeps."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from palladion.errors import ConflictError, FormatError, NotFoundError, PalladionError, StorageError
from palladion.seal.layout import PARAMETERS
from palladion.seal.lazy import open_lazily
from palladion.seal.source import read
from palladion.transit import s3
from palladion.transit.places import open_url
from palladion.transit.pull import pull
from palladion.transit.push import push
from palladion.transit.store import Whole, beside
from tests.transit.factories import QUICK, Sealed, sealed

pytestmark = pytest.mark.service
boto3 = pytest.importorskip("boto3", reason="this needs the aws extra")
moto = pytest.importorskip("moto.server", reason="this needs moto[server]")
ClientError = pytest.importorskip("botocore.exceptions").ClientError

ADDRESS = "s3://models/prod/fraud v3.sealed"
KEY = "prod/fraud v3.sealed"


@dataclass
class Store:
    """A bucket `models`, and what it was asked."""

    client: Any
    asked: list[tuple[str, str, str]]  # method, path, range

    def content(self, key: str = KEY) -> bytes:
        data: bytes = self.client.get_object(Bucket="models", Key=key)["Body"].read()
        return data


@pytest.fixture(scope="module")
def _server() -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    from moto.server import ThreadedMotoServer

    asked: list[tuple[str, str, str]] = []
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    running = server._server
    assert running is not None
    inner = running.app

    def noting(environ: dict[str, str], start: Any) -> Any:
        asked.append((environ["REQUEST_METHOD"], environ["PATH_INFO"], environ.get("HTTP_RANGE", "")))
        return inner(environ, start)

    running.app = noting
    _, port = server.get_host_and_port()
    yield f"http://127.0.0.1:{port}", asked
    server.stop()


@pytest.fixture
def store(_server: tuple[str, list[tuple[str, str, str]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    address, asked = _server
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL_S3": address,
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
    }.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    for bucket in client.list_buckets()["Buckets"]:
        for upload in client.list_multipart_uploads(Bucket=bucket["Name"]).get("Uploads", []):
            client.abort_multipart_upload(Bucket=bucket["Name"], Key=upload["Key"], UploadId=upload["UploadId"])
        for item in client.list_objects_v2(Bucket=bucket["Name"]).get("Contents", []):
            client.delete_object(Bucket=bucket["Name"], Key=item["Key"])
        client.delete_bucket(Bucket=bucket["Name"])
    client.create_bucket(Bucket="models")
    asked.clear()
    return Store(client, asked)


@pytest.fixture
def made(tmp_path: Path) -> Sealed:
    return sealed(tmp_path / "made", segments=7)


def test_a_file_goes_and_comes_with_what_lies_beside_it(tmp_path: Path, store: Store, made: Sealed) -> None:
    beside(made.path, ".license").write_bytes(b"licence")
    assert push(made.path, ADDRESS, made.publishers, limits=QUICK).sent
    assert store.content() == made.data
    assert store.content(f"{KEY}.license") == b"licence"
    assert not push(made.path, ADDRESS, made.publishers, limits=QUICK).sent
    pulled = pull(ADDRESS, tmp_path / "x", made.publishers, limits=QUICK)
    assert (tmp_path / "x").read_bytes() == made.data
    assert [path.read_bytes() for path in pulled.sidecars] == [b"licence"]


def test_one_piece_of_a_file_is_read_by_few_ranges(store: Store, made: Sealed) -> None:
    store.client.put_object(Bucket="models", Key=KEY, Body=made.data)
    store.asked.clear()
    with open_lazily(open_url(ADDRESS, limits=QUICK), [made.party.identity], made.publishers) as lazy:
        piece = lazy.read("model.bin", 5 * PARAMETERS.capacity, 1000)
    assert piece == made.party.open(made.path)["model.bin"][5 * PARAMETERS.capacity :][:1000]
    # asked once for its being there, then: head, tail, the manifest's segment, the piece's
    assert [method for method, _, _ in store.asked] == ["HEAD", "GET", "GET", "GET", "GET"]
    ends = [asked[2].removeprefix("bytes=").split("-") for asked in store.asked[1:]]
    assert sum(int(last) - int(first) + 1 for first, last in ends) < 2 * PARAMETERS.segment_bytes + 128 * 1024


def test_another_object_is_kept_unless_it_is_to_be_replaced(store: Store, tmp_path: Path, made: Sealed) -> None:
    other = sealed(tmp_path / "other", party=made.party).data
    store.client.put_object(Bucket="models", Key=KEY, Body=other)
    with pytest.raises(ConflictError, match="lies fraud version 3"):
        push(made.path, ADDRESS, made.publishers, limits=QUICK)
    assert store.content() == other
    push(made.path, ADDRESS, made.publishers, replace=True, limits=QUICK)
    assert store.content() == made.data


def test_an_object_that_appears_meanwhile_is_kept(store: Store, made: Sealed, monkeypatch: pytest.MonkeyPatch) -> None:
    real = s3._Upload._send

    def race(self: Any, upload: str, number: int, arrived: Any) -> dict[str, object]:
        store.client.put_object(Bucket="models", Key=KEY, Body=b"theirs")
        return real(self, upload, number, arrived)

    monkeypatch.setattr(s3._Upload, "_send", race)
    with pytest.raises(ConflictError, match="exists already"):
        push(made.path, ADDRESS, made.publishers, limits=QUICK)
    assert store.content() == b"theirs"


def test_an_upload_that_broke_off_goes_on(store: Store, made: Sealed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "PART_SEGMENTS_MIN", 6)
    first = made.data[: 349 + 6 * PARAMETERS.segment_bytes]
    upload = store.client.create_multipart_upload(Bucket="models", Key=KEY)["UploadId"]
    name = {"Bucket": "models", "Key": KEY, "UploadId": upload}
    store.client.upload_part(**name, PartNumber=1, Body=_part_of(made, 0, 6))
    store.client.upload_part(**name, PartNumber=2, Body=os.urandom(len(first)))  # damaged: sent again
    store.asked.clear()
    push(made.path, ADDRESS, made.publishers, limits=QUICK)
    assert store.content() == made.data
    puts = [path for method, path, _ in store.asked if method == "PUT"]
    assert len(puts) == 1


def _part_of(made: Sealed, begin: int, end: int) -> bytes:
    return bytes(Whole(made.path, made.publishers).part(range(begin, end)))


def test_an_upload_of_something_else_is_not_gone_on_with(
    store: Store, made: Sealed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "PART_SEGMENTS_MIN", 6)
    upload = store.client.create_multipart_upload(Bucket="models", Key=KEY)["UploadId"]
    name = {"Bucket": "models", "Key": KEY, "UploadId": upload}
    for number in (1, 2, 3):
        store.client.upload_part(**name, PartNumber=number, Body=os.urandom(6 * 1024 * 1024))
    push(made.path, ADDRESS, made.publishers, limits=QUICK)
    assert store.content() == made.data


def test_an_object_swapped_midway_is_noticed(store: Store, made: Sealed) -> None:
    store.client.put_object(Bucket="models", Key=KEY, Body=made.data)
    source = s3.S3Store(ADDRESS, QUICK).open()
    assert read(source, 10, 2_000_000) == made.data[2_000_000:2_000_010]
    store.client.put_object(Bucket="models", Key=KEY, Body=os.urandom(len(made.data)))
    with pytest.raises(FormatError, match="replaced by another file"):
        read(source, 10, 2_000_000)
    source.close()


def test_what_is_missing_is_told(store: Store, made: Sealed, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="does not exist"):
        pull(ADDRESS, tmp_path / "x", made.publishers, limits=QUICK)
    with pytest.raises(NotFoundError, match="does not exist"):
        pull("s3://nothing-here/fraud.sealed", tmp_path / "x", made.publishers, limits=QUICK)
    with pytest.raises(NotFoundError, match="NoSuchBucket"):
        push(made.path, "s3://nothing-here/fraud.sealed", made.publishers, limits=QUICK)


def test_a_sidecar_without_end_is_refused(store: Store) -> None:
    store.client.put_object(Bucket="models", Key=f"{KEY}.license", Body=bytes(4 * 1024 * 1024 + 1))
    with pytest.raises(FormatError, match="larger than"):
        s3.S3Store(ADDRESS, QUICK).sidecar(".license")
    assert s3.S3Store(ADDRESS, QUICK).sidecar(".tsr") is None


def test_without_credentials_a_sentence_says_where_they_come_from(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setattr("boto3.DEFAULT_SESSION", None)
    with pytest.raises(StorageError, match="cannot be reached: Unable to locate credentials") as caught:
        open_url(ADDRESS, limits=QUICK)
    assert "AWS_PROFILE" in caught.value.hints[0]


def test_an_endpoint_without_tls_is_for_this_machine_alone(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://192.0.2.1:9000")
    with pytest.raises(PalladionError, match="is not encrypted"):
        open_url(ADDRESS, limits=QUICK)


def test_a_store_without_conditional_uploads_is_told(
    store: Store, made: Sealed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ClientError({"Error": {"Code": "NotImplemented"}}, "CompleteMultipartUpload")

    monkeypatch.setattr(s3._Upload, "run", refuse)
    with pytest.raises(StorageError, match="knows no conditional uploads"):
        push(made.path, ADDRESS, made.publishers, limits=QUICK)
