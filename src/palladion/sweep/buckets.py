"""Objects of an S3 bucket, all versions of them, and to whom the bucket shows them.

boto3 finds credentials, regions and endpoints. Only heads are read, by ranges; what is asked for is listed in
docs/storage.md as permissions.
"""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from palladion.errors import NotFoundError, PalladionError, StorageError
from palladion.sweep.finding import Finding, found
from palladion.sweep.item import Item
from palladion.transit.connection import Limits
from palladion.transit.s3 import s3_client
from palladion.transit.url import parse_url

OBJECTS_MAX = 5_000_000
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_EVERYBODY = {
    "http://acs.amazonaws.com/groups/global/AllUsers": "everybody",
    "http://acs.amazonaws.com/groups/global/AuthenticatedUsers": "everybody with an account at AWS",
}
_BLOCKS = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
_UNSET = frozenset({"NoSuchBucketPolicy", "NoSuchPublicAccessBlockConfiguration", "NotImplemented", "MethodNotAllowed"})
_CREDENTIALS = "credentials, region and endpoint are those that boto3 finds: ~/.aws, AWS_PROFILE, the machine's role"


class Bucket:
    """One bucket, or what in it begins with a prefix, by `s3://BUCKET[/PREFIX]`."""

    def __init__(self, text: str, limits: Limits, *, endpoint: str | None = None) -> None:
        """Raises PalladionError if `text` is no such address, MissingExtraError without boto3."""
        name, _, prefix = text.removeprefix("s3://").partition("/")
        if not _BUCKET.fullmatch(name):
            raise PalladionError(f"{text!r} is not s3://BUCKET or s3://BUCKET/PREFIX")
        self.what = f"s3://{name}"
        self._name, self._prefix = name, prefix
        self._client = s3_client(limits, endpoint)
        try:
            parse_url(self._client.meta.endpoint_url, insecure_http=limits.insecure_http)
        except ValueError as error:
            raise PalladionError(str(error)) from None
        self._open_to: tuple[str, ...] = ()
        self._ignores_grants = False
        self._listed: tuple[str, str, dict[str, str]] = ("", "", {})  # place, key and version of the last object
        self._refused = False

    def standing(self, report: Callable[[Finding], None]) -> None:
        """To whom the bucket shows what is in it: its list of grants, its policy, and what blocks both."""
        blocks = self._ask("public access block", report, "get_public_access_block")
        settings = (blocks or {}).get("PublicAccessBlockConfiguration", {})
        off = [name for name in _BLOCKS if not settings.get(name)]
        if off and blocks is not _REFUSED:
            report(found("not-blocked", self.what, f"block public access is off: {', '.join(off)}"))
        self._ignores_grants = bool(settings.get("IgnorePublicAcls"))
        grants = _strangers(self._ask("list of grants", report, "get_bucket_acl"))
        shown = list(grants) if not self._ignores_grants else []
        document = self._ask("policy", report, "get_bucket_policy")
        if document and not settings.get("RestrictPublicBuckets"):
            shown += [f"{who} by its policy" for who in _policy_strangers(str(document.get("Policy", "")))]
        self._open_to = tuple(dict.fromkeys(shown))
        for who in self._open_to:
            report(found("public", self.what, f"open to {who}"))

    def items(self, report: Callable[[Finding], None]) -> Iterator[Item]:
        """Every object, and the versions that came before it, which stay readable until they are deleted."""
        with _errors(self.what):
            pages = self._client.get_paginator("list_object_versions").paginate(Bucket=self._name, Prefix=self._prefix)
            count = 0
            for page in pages:
                for listed in page.get("Versions", ()):
                    count += 1
                    if count > OBJECTS_MAX:
                        report(found("not-read", self.what, f"it has more than {OBJECTS_MAX} objects"))
                        return
                    yield self._item(listed)

    def object_open_to(self, item: Item, report: Callable[[Finding], None]) -> tuple[str, ...]:
        """To which strangers the grants of the object that `items` gave last show it, where the bucket heeds them.

        Where they may not be read, that is reported once.
        """
        place, key, version = self._listed
        if self._ignores_grants or item.place != place:
            return ()
        try:
            with _errors(item.place):
                return _strangers(self._client.get_object_acl(Bucket=self._name, Key=key, **version))
        except PalladionError as error:
            if not self._refused:
                report(found("not-read", self.what, f"grants of its objects may not be read, {error.message}"))
            self._refused = True
            return ()

    def _item(self, listed: dict[str, Any]) -> Item:
        key, size = str(listed["Key"]), int(listed["Size"])
        old = not listed.get("IsLatest", True)
        # "null" is the version from before a bucket had versions: without its name, S3 gives out the latest instead
        named = listed.get("VersionId") is not None and (old or listed["VersionId"] != "null")
        version = {"VersionId": str(listed["VersionId"])} if named else {}
        place = f"{self.what}/{key}" + (f"?versionId={listed['VersionId']}" if old else "")

        self._listed = (place, key, version)

        def read(offset: int, count: int) -> bytes:
            if not count or offset >= size:
                return b""
            span = f"bytes={offset}-{min(offset + count, size) - 1}"
            with _errors(place):
                answer = self._client.get_object(Bucket=self._name, Key=key, Range=span, **version)
                data: bytes = answer["Body"].read(count + 1)
            return data[:count]

        return Item(
            place,
            key.rpartition("/")[2] or key,
            size,
            read,
            parent=place.rpartition("/")[0],
            context="an older version, which deleting or replacing the object has left" if old else "",
            open_to=self._open_to,
        )

    def _ask(self, what: str, report: Callable[[Finding], None], method: str) -> dict[str, Any] | None:
        """An answer about the bucket; None where nothing is set. What may not be asked is reported."""
        from botocore.exceptions import ClientError

        try:
            answer: dict[str, Any] = getattr(self._client, method)(Bucket=self._name)
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", "unknown"))
            if code in _UNSET:
                return None
            if code in {"NoSuchBucket", "404"}:
                raise NotFoundError(f"{self.what} does not exist: S3 answers {code}") from None
            report(found("not-read", self.what, f"its {what} may not be read: S3 answers {code}"))
            return _REFUSED
        return answer


_REFUSED: dict[str, Any] = {}


def _strangers(grants: dict[str, Any] | None) -> tuple[str, ...]:
    told = []
    for grant in (grants or {}).get("Grants", ()):
        who = _EVERYBODY.get(str(grant.get("Grantee", {}).get("URI", "")))
        if who:
            told.append(f"{who} by a grant ({str(grant.get('Permission', '')).lower().replace('_', ' ')})")
    return tuple(told)


def _policy_strangers(text: str) -> list[str]:
    """Who is let in by statements that allow everybody something, with a condition or without. Raises nothing.

    `NotPrincipal` lets in everybody but those named, and `NotAction` allows everything but that.
    """
    try:
        statements = json.loads(text)["Statement"]
    except (ValueError, KeyError, TypeError):
        return []
    told = []
    for statement in statements if isinstance(statements, list) else [statements]:
        if not isinstance(statement, dict) or statement.get("Effect") != "Allow":
            continue
        principal = statement.get("Principal")
        everybody = "NotPrincipal" in statement or "*" in _listed(
            principal.get("AWS") if isinstance(principal, dict) else principal
        )
        actions = [action for action in _listed(statement.get("Action")) if action.lower().startswith(("s3:", "*"))]
        if "NotAction" in statement:
            actions.append(f"all but {', '.join(_listed(statement['NotAction']))}")
        if everybody and actions:
            with_condition = " on a condition" if statement.get("Condition") else ""
            told.append(f"everybody{with_condition} ({', '.join(actions)[:80]})")
    return told


def _listed(value: Any) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else [] if value is None else [str(value)]


@contextmanager
def _errors(what: str) -> Iterator[None]:
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "unknown")
        kind = NotFoundError if code in {"404", "NoSuchKey", "NoSuchBucket"} else StorageError
        raise kind(f"{what}: S3 answers {code}", _CREDENTIALS) from None
    except (BotoCoreError, Boto3Error) as error:
        raise StorageError(f"{what} cannot be reached: {error}", _CREDENTIALS) from None
