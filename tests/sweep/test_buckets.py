"""S3, by moto's server: objects by ranges, older versions, and to whom a bucket shows what is in it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from palladion.errors import NotFoundError, PalladionError
from palladion.sweep.buckets import Bucket, _policy_strangers
from palladion.sweep.finding import Finding
from palladion.sweep.sweep import Swept
from palladion.transit.connection import Limits
from tests.sweep.things import ONNX, PEM, sweep, told, zip_bytes

boto3 = pytest.importorskip("boto3", reason="this needs the aws extra")
pytest.importorskip("moto.server", reason="this needs moto[server]")
pytestmark = [pytest.mark.service, pytest.mark.slow]

BLOCKED = dict.fromkeys(("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True)
EVERYBODY = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::models/*"}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    yield "http://{}:{}".format(*running.get_host_and_port())
    running.stop()


@pytest.fixture
def client(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A bucket `models`, of which public access is blocked."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL_S3": server,
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
    }.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    for bucket in client.list_buckets()["Buckets"]:
        name = bucket["Name"]
        for listed in client.list_object_versions(Bucket=name).get("Versions", []):
            client.delete_object(Bucket=name, Key=listed["Key"], VersionId=listed["VersionId"])
        for listed in client.list_object_versions(Bucket=name).get("DeleteMarkers", []):
            client.delete_object(Bucket=name, Key=listed["Key"], VersionId=listed["VersionId"])
        client.delete_bucket(Bucket=name)
    client.create_bucket(Bucket="models")
    client.put_public_access_block(Bucket="models", PublicAccessBlockConfiguration=BLOCKED)
    return client


def _rules(swept: Swept) -> set[tuple[str, str]]:
    return told(swept, "s3://models")


def test_objects_are_judged_by_their_content(client: Any) -> None:
    client.put_object(Bucket="models", Key="prod/a model", Body=ONNX)
    client.put_object(Bucket="models", Key="prod/key", Body=PEM.encode())
    client.put_object(Bucket="models", Key="other/b", Body=ONNX)
    assert _rules(sweep("s3://models/prod/")) == {("plain-model", "prod/a model"), ("private-key", "prod/key")}
    assert ("plain-model", "other/b") in _rules(sweep("s3://models"))


def test_of_a_large_object_only_the_beginning_is_read(
    client: Any, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.put_object(Bucket="models", Key="large", Body=b"GGUF" + bytes(8 * 2**20))
    bucket = Bucket("s3://models", Limits())
    (item,) = bucket.items(lambda _finding: None)
    asked: list[str] = []
    real = bucket._client.get_object

    def get_object(**named: Any) -> Any:
        asked.append(named["Range"])
        return real(**named)

    monkeypatch.setattr(bucket._client, "get_object", get_object)
    assert item.head()[:4] == b"GGUF"
    assert item.read(item.size - 3, 50) == bytes(3)
    assert item.read(item.size, 50) == b""
    assert asked == ["bytes=0-65535", f"bytes={item.size - 3}-{item.size - 1}"]


def test_older_versions_are_found(client: Any) -> None:
    client.put_bucket_versioning(Bucket="models", VersioningConfiguration={"Status": "Enabled"})
    client.put_object(Bucket="models", Key="m", Body=ONNX)
    client.put_object(Bucket="models", Key="m", Body=b"nothing of note" * 9)
    client.delete_object(Bucket="models", Key="m")
    (found,) = [found for found in sweep("s3://models").findings if found.rule == "plain-model"]
    assert found.place.startswith("s3://models/m?versionId=")
    assert "an older version" in found.text


def test_a_bucket_whose_grants_let_everybody_in_is_public(client: Any) -> None:
    client.delete_public_access_block(Bucket="models")
    client.put_object(Bucket="models", Key="m", Body=ONNX)
    client.put_bucket_acl(Bucket="models", ACL="public-read")
    assert _rules(sweep("s3://models")) == {
        ("not-blocked", "s3://models"),
        ("public", "s3://models"),
        ("public", "m"),
        ("plain-model", "m"),
    }


def test_an_object_of_its_own_grants_is_public(client: Any) -> None:
    client.delete_public_access_block(Bucket="models")
    client.put_object(Bucket="models", Key="open", Body=ONNX, ACL="public-read")
    client.put_object(Bucket="models", Key="shut", Body=ONNX)
    found = _rules(sweep("s3://models"))
    assert ("public", "open") in found
    assert ("public", "shut") not in found


def test_a_policy_for_everybody_is_public_unless_it_is_blocked(client: Any) -> None:
    client.put_object(Bucket="models", Key="m", Body=ONNX)
    client.delete_public_access_block(Bucket="models")
    client.put_bucket_policy(Bucket="models", Policy=json.dumps({"Version": "2012-10-17", "Statement": [EVERYBODY]}))
    assert ("public", "m") in _rules(sweep("s3://models"))
    client.put_public_access_block(Bucket="models", PublicAccessBlockConfiguration=BLOCKED)
    assert _rules(sweep("s3://models")) == {("plain-model", "m")}


@pytest.mark.parametrize(
    ("statement", "open_to"),
    [
        (EVERYBODY, 1),
        ({**EVERYBODY, "Principal": {"AWS": ["*"]}}, 1),
        ({**EVERYBODY, "Condition": {"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}}, 1),
        ({**EVERYBODY, "Effect": "Deny"}, 0),
        ({**EVERYBODY, "Principal": {"AWS": "arn:aws:iam::1:root"}}, 0),
        ("nonsense", 0),
    ],
)
def test_a_policy_is_read_statement_by_statement(statement: object, open_to: int) -> None:
    assert len(_policy_strangers(json.dumps({"Statement": statement}))) == open_to
    assert len(_policy_strangers(json.dumps({"Statement": [statement]}))) == open_to


def test_a_policy_that_is_none_lets_nobody_in() -> None:
    assert _policy_strangers("{") == []
    assert _policy_strangers("[]") == []


def test_what_is_no_bucket_or_not_there_is_an_error(client: Any) -> None:
    with pytest.raises(NotFoundError, match="does not exist"):
        sweep("s3://gone")
    with pytest.raises(PalladionError, match="is not s3://"):
        sweep("s3://A_B")


def test_an_endpoint_without_tls_on_another_machine_is_refused(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://s3.example")
    with pytest.raises(PalladionError, match="insecure"):
        sweep("s3://models")


def test_a_planted_file_is_sealed_like_any_other(client: Any, tmp_path: Path) -> None:
    from palladion.lifecycle.decoy_files import places_of, plant_file
    from palladion.sweep.known import judge_of
    from tests.lifecycle.installations import ACTOR, make

    made = make(tmp_path)
    place = "s3://models/prod/fraud prod.sealed"
    planted = plant_file(
        made.installation, made.owner, place, label="bucket", model="fraud-prod", size=3_000_000, actor=ACTOR
    )
    assert places_of(made.installation, planted.decoy) == [place]
    swept = sweep("s3://models", judge=judge_of(made.installation))
    assert told(swept) == set()
    assert [(sealed.place, sealed.text) for sealed in swept.sealed] == [(place, "fraud-prod@1 original, sealed, ours")]


def test_the_version_from_before_versions_is_read_and_not_the_latest(client: Any) -> None:
    client.put_object(Bucket="models", Key="m", Body=ONNX)
    client.put_bucket_versioning(Bucket="models", VersioningConfiguration={"Status": "Enabled"})
    client.put_object(Bucket="models", Key="m", Body=b"nothing of interest" * 99)
    assert _rules(sweep("s3://models")) == {("plain-model", "m?versionId=null")}


def test_a_key_or_an_archive_of_its_own_grants_is_public_too(client: Any) -> None:
    client.delete_public_access_block(Bucket="models")
    client.put_object(Bucket="models", Key="k?versionId=1", Body=PEM.encode(), ACL="public-read")
    client.put_object(Bucket="models", Key="a.zip", Body=zip_bytes({"m.onnx": ONNX}), ACL="public-read")
    found = _rules(sweep("s3://models"))
    assert {("public", "k?versionId=1"), ("public", "a.zip!m.onnx")} <= found


def test_grants_that_may_not_be_read_are_a_finding(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    client.delete_public_access_block(Bucket="models")
    for key in "ab":
        client.put_object(Bucket="models", Key=key, Body=ONNX)
    bucket, reported = Bucket("s3://models", Limits()), list[Finding]()

    from botocore.exceptions import ClientError

    def refused(**_named: object) -> None:
        raise ClientError({"Error": {"Code": "AccessDenied"}}, "GetObjectAcl")

    monkeypatch.setattr(bucket._client, "get_object_acl", refused)
    for item in bucket.items(reported.append):
        assert bucket.object_open_to(item, reported.append) == ()
    assert [(found.rule, "AccessDenied" in found.text) for found in reported] == [("not-read", True)]


@pytest.mark.parametrize(
    "changed",
    [
        {"Action": "S3:getobject"},
        {"Principal": ["*"]},
        {"Principal": None, "NotPrincipal": {"AWS": "arn:aws:iam::1:root"}},
        {"Action": None, "NotAction": "s3:DeleteObject"},
    ],
)
def test_a_policy_lets_everybody_in_by_other_words_too(changed: dict[str, object]) -> None:
    statement = {name: value for name, value in (EVERYBODY | changed).items() if value is not None}
    assert len(_policy_strangers(json.dumps({"Statement": [statement]}))) == 1
