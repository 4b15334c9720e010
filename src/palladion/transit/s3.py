"""A sealed file in S3, or in what speaks its protocol: read by presigned ranges, sent in parts that can be resumed.

boto3 finds credentials, regions and endpoints, signs, and uploads; what comes down comes through `ranges`, under its
limits.
"""

import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import md5
from typing import Any

from palladion.errors import ConflictError, FormatError, MissingExtraError, NotFoundError, PalladionError, StorageError
from palladion.seal.structure import Progress
from palladion.transit.connection import Limits
from palladion.transit.ranges import Headers, WebSource
from palladion.transit.store import SIDECAR_BYTES_MAX, Whole
from palladion.transit.url import Url, parse_url
from palladion.transit.web import Web

PRESIGNED_SECONDS = 3600  # a new address is asked for when one has ended
PART_SEGMENTS_MIN = 16  # 16 MiB; S3 takes at least 5, and a part is what an interruption loses
PARTS_MAX = 10_000  # S3's limit
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_KEY_BYTES_MAX = 1024
_ABSENT = frozenset({"404", "NoSuchKey", "NoSuchBucket", "NotFound"})
_EXISTS = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412", "409"})


class S3Store:
    """One object, by `s3://BUCKET/KEY`. `endpoint` is for stores other than Amazon's; boto3 finds it by itself too."""

    sha256 = None

    def __init__(self, text: str, limits: Limits, *, endpoint: str | None = None) -> None:
        """Raises ValueError if `text` is no such address or the endpoint lacks TLS, MissingExtraError without boto3."""
        # taken as it stands, as other tools do: % and ? are letters of a key
        bucket, _, key = text.removeprefix("s3://").partition("/")
        if not _BUCKET.fullmatch(bucket) or not 0 < len(key.encode()) <= _KEY_BYTES_MAX:
            raise ValueError(f"{text!r} is not s3://BUCKET/KEY")
        self.what = f"s3://{bucket}/{key}"
        self._bucket = bucket
        self._key = key
        self._limits = limits
        self._client = s3_client(limits, endpoint)
        parse_url(self._client.meta.endpoint_url, insecure_http=limits.insecure_http)

    def open(self) -> WebSource:
        """The object there, by ranges."""
        with _s3_errors(self.what):
            # asked by boto3 first: it follows the bucket to its region, and says what is wrong with credentials
            self._client.head_object(Bucket=self._bucket, Key=self._key)
        web = Web(self._limits)
        try:
            return WebSource(web, lambda _fresh: self._presigned(), self.what)
        except BaseException:
            web.close()
            raise

    def sidecar(self, suffix: str) -> bytes | None:
        """The small object beside it."""
        try:
            with _s3_errors(self.what + suffix):
                answer = self._client.get_object(Bucket=self._bucket, Key=self._key + suffix)
                data: bytes = answer["Body"].read(SIDECAR_BYTES_MAX + 1)
        except (NotFoundError, _ForbiddenError):
            # without the right to list a bucket, S3 answers 403 for what does not exist
            return None
        if len(data) > SIDECAR_BYTES_MAX:
            raise FormatError(f"{self.what}{suffix} is larger than the {SIDECAR_BYTES_MAX} bytes allowed")
        return data

    def put(
        self,
        whole: Whole,
        sidecars: Mapping[str, bytes],
        *,
        replace: bool,
        progress: Progress | None = None,
    ) -> None:
        """Upload it, going on where an earlier upload of the same file ended."""
        with _s3_errors(self.what):
            for suffix, data in sidecars.items():
                self._client.put_object(Bucket=self._bucket, Key=self._key + suffix, Body=data)
            _Upload(self._client, self._bucket, self._key, whole, progress).run(
                self._limits.connections, replace=replace
            )

    def _presigned(self) -> tuple[Url, Headers]:
        parameters = {"Bucket": self._bucket, "Key": self._key}
        with _s3_errors(self.what):
            text = self._client.generate_presigned_url("get_object", Params=parameters, ExpiresIn=PRESIGNED_SECONDS)
        return parse_url(text, insecure_http=self._limits.insecure_http), {}


class _Upload:
    """A multipart upload: parts are whole segments, so that each is verified in memory before it is sent."""

    def __init__(self, client: Any, bucket: str, key: str, whole: Whole, progress: Progress | None) -> None:
        self._client = client
        self._object = {"Bucket": bucket, "Key": key}
        self._whole = whole
        self._progress = progress
        self._done = 0
        count = whole.structure.layout.segments
        size = max(PART_SEGMENTS_MIN, -(-count // PARTS_MAX))
        self._parts = [range(begin, min(begin + size, count)) for begin in range(0, count, size)]

    def run(self, threads: int, *, replace: bool) -> None:
        upload, arrived = self._unfinished()
        if upload is None:
            created = self._client.create_multipart_upload(**self._object, ContentType="application/octet-stream")
            upload = str(created["UploadId"])
        with ThreadPoolExecutor(threads, "palladion-push") as pool:
            sent = list(pool.map(lambda number: self._send(upload, number, arrived), range(1, len(self._parts) + 1)))
        condition = {} if replace else {"IfNoneMatch": "*"}
        self._client.complete_multipart_upload(
            **self._object, UploadId=upload, MultipartUpload={"Parts": sent}, **condition
        )

    def _send(self, upload: str, number: int, arrived: Mapping[int, str]) -> dict[str, object]:
        part = self._parts[number - 1]
        data = self._whole.part(part)
        # S3 tells a part's MD5. Nothing rests on it but whether the part is sent again: readers check signed digests
        etag = arrived.get(number, "")
        if etag.strip('"') != md5(data, usedforsecurity=False).hexdigest():
            name = {**self._object, "UploadId": upload, "PartNumber": number}
            etag = self._client.upload_part(**name, Body=data)["ETag"]
        self._done += len(data)
        if self._progress:
            self._progress(self._done, self._whole.size)
        return {"PartNumber": number, "ETag": etag}

    def _unfinished(self) -> tuple[str | None, dict[int, str]]:
        """The newest upload to this key that was begun and not ended, and the ETags of its parts."""
        key = self._object["Key"]
        listed = self._client.list_multipart_uploads(Bucket=self._object["Bucket"], Prefix=key)
        begun = [item for item in listed.get("Uploads", []) if item["Key"] == key]
        if not begun:
            return None, {}
        upload = str(max(begun, key=lambda item: item["Initiated"])["UploadId"])
        pages = self._client.get_paginator("list_parts").paginate(**self._object, UploadId=upload)
        arrived = {part["PartNumber"]: part["ETag"] for page in pages for part in page.get("Parts", [])}
        # parts beyond ours are of an upload of something else
        return (upload, arrived) if all(number <= len(self._parts) for number in arrived) else (None, {})


class _ForbiddenError(StorageError):
    """S3 answers 403."""


def s3_client(limits: Limits, endpoint: str | None) -> Any:
    """A client of S3 within these limits. Raises MissingExtraError, StorageError where none can be made."""
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ImportError:
        raise MissingExtraError("s3:// needs boto3, which is not installed", "pip install 'palladion[aws]'") from None
    config = Config(
        signature_version="s3v4",
        connect_timeout=limits.idle_seconds,
        read_timeout=limits.idle_seconds,
        max_pool_connections=limits.connections,
        retries={"mode": "standard", "total_max_attempts": limits.attempts},
    )
    try:
        return boto3.client("s3", endpoint_url=endpoint, config=config)
    except (BotoCoreError, ValueError) as error:
        raise StorageError(f"S3 cannot be used: {error}", _CREDENTIALS) from None


_CREDENTIALS = "credentials, region and endpoint are those that boto3 finds: ~/.aws, AWS_PROFILE, the machine's role"


@contextmanager
def _s3_errors(what: str) -> Iterator[None]:
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        raise _meaning(error.response.get("Error", {}).get("Code", "unknown"), what) from None
    except (BotoCoreError, Boto3Error) as error:
        raise StorageError(f"{what} cannot be reached: {error}", _CREDENTIALS) from None


def _meaning(code: str, what: str) -> PalladionError:
    if code in _ABSENT:
        return NotFoundError(f"{what} does not exist: S3 answers {code}")
    if code in _EXISTS:
        return ConflictError(f"{what} exists already", "name another address, or use --replace")
    if code == "NotImplemented":
        return StorageError(f"{what}: this store knows no conditional uploads", "--replace does without the condition")
    if code in ("403", "AccessDenied"):
        return _ForbiddenError(f"{what} is refused: S3 answers {code}", _CREDENTIALS)
    return StorageError(f"{what}: S3 answers {code}", _CREDENTIALS)
