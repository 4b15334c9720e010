"""A registry's protocol: tokens for the right scope, uploads that go on, and answers that are what digests name."""

import base64
import json
from dataclasses import replace
from pathlib import Path

import pytest

from palladion.errors import FormatError, NotFoundError, StorageError, TamperError
from palladion.seal.source import read
from palladion.transit import registry as module
from palladion.transit.oci import digest_of, parse_reference
from palladion.transit.registry import Registry
from palladion.transit.store import Whole
from tests.transit.factories import QUICK, sealed
from tests.transit.registries import LOGIN, registry
from tests.transit.registries import Registry as Double
from tests.transit.servers import Handler, answering, hang_up, only

pytestmark = pytest.mark.service  # servers on loopback


@pytest.fixture(autouse=True)
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    (tmp_path / "docker").mkdir()
    return tmp_path / "docker" / "config.json"


def _client(double: Double, manifest: str = ":v3") -> Registry:
    return Registry(parse_reference(f"oci://{double.host}/models/fraud{manifest}"), QUICK)


def _log_in(docker: Path, double: Double) -> None:
    auth = base64.b64encode(LOGIN.encode()).decode()
    docker.write_text(json.dumps({"auths": {double.host: {"auth": auth}}}))


def _whole(folder: Path, segments: int = 3) -> tuple[Whole, bytes, str]:
    made = sealed(folder / "made", segments=segments)
    return Whole(made.path, made.publishers), made.data, digest_of(made.data)


def test_blobs_and_manifests_come_back_as_they_went(tmp_path: Path) -> None:
    whole, data, digest = _whole(tmp_path)
    with registry() as double:
        client = _client(double)
        client.put_blob(digest_of(b"{}"), b"{}")
        client.put_whole(digest, whole, None)
        assert double.blobs == {digest_of(b"{}"): b"{}", digest: data}
        assert client.blob(digest_of(b"{}"), 2) == b"{}"
        source = client.blob_source(digest)
        assert read(source, 100, 1_000_000) == data[1_000_000:1_000_100]
        assert source.size == len(data)
        client.close()


def test_what_is_there_is_not_sent_again(tmp_path: Path) -> None:
    whole, data, digest = _whole(tmp_path)
    with registry(blobs={digest: data}) as double:
        _client(double).put_whole(digest, whole, None)
        assert [method for method, _, _ in double.asked] == ["HEAD"]


def test_a_large_file_goes_in_chunks_that_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_SEGMENTS", 2)
    whole, data, digest = _whole(tmp_path, segments=5)
    told: list[tuple[int, int]] = []
    with registry() as double:
        _client(double).put_whole(digest, whole, lambda *now: told.append(now))
        assert double.blobs[digest] == data
        assert [method for method, _, _ in double.asked].count("PATCH") == 3
    assert told[-1] == (len(data), len(data))


@pytest.mark.parametrize("kept", [0, 1, 700_000])
@pytest.mark.parametrize("number", [0, 1])
def test_an_upload_that_breaks_off_goes_on_where_the_registry_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int, number: int
) -> None:
    monkeypatch.setattr(module, "CHUNK_SEGMENTS", 2)
    whole, data, digest = _whole(tmp_path)

    def break_off(handler: Handler) -> bool:
        # kept by the registry, and never acknowledged
        upload = list(handler.shelf.uploads.values())[-1]  # type: ignore[attr-defined]
        upload += handler.body()[:kept]
        return hang_up(handler)

    with registry(only("PATCH", number, break_off)) as double:
        _client(double).put_whole(digest, whole, None)
        assert double.blobs[digest] == data


def test_an_upload_that_the_registry_miscounts_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_SEGMENTS", 1)
    whole, _, digest = _whole(tmp_path)
    boast = only("GET", 0, answering(204, {"Range": "0-99999999"}))
    with (
        registry(only("PATCH", 1, hang_up), boast) as double,
        pytest.raises(FormatError, match="says it has 100000000"),
    ):
        _client(double).put_whole(digest, whole, None)


def test_an_upload_that_the_registry_forgot_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_SEGMENTS", 1)
    whole, _, digest = _whole(tmp_path)
    forgotten = only("GET", 0, answering(404))
    with registry(only("PATCH", 1, hang_up), forgotten) as double, pytest.raises(StorageError, match="forgotten"):
        _client(double).put_whole(digest, whole, None)


def test_an_upload_that_arrives_damaged_is_told(tmp_path: Path) -> None:
    whole, _, _ = _whole(tmp_path)
    with registry() as double, pytest.raises(TamperError, match="has another digest"):
        _client(double).put_whole(digest_of(b"other"), whole, None)


def test_attack_an_upload_is_not_led_to_something_weaker(tmp_path: Path) -> None:
    whole, _, digest = _whole(tmp_path)
    for location in ("http://192.0.2.1/x", "file:///etc/passwd", "https://a:b@192.0.2.1/x"):
        elsewhere = only("POST", 0, answering(202, {"Location": location}))
        with registry(elsewhere) as double, pytest.raises(FormatError, match="is not used"):
            _client(double).put_whole(digest, whole, None)


@pytest.mark.parametrize("auth", ["basic", "bearer"])
def test_a_login_from_dockers_config_opens_the_registry(tmp_path: Path, docker: Path, auth: str) -> None:
    whole, data, digest = _whole(tmp_path)
    with registry(auth=auth) as double:
        with pytest.raises(StorageError, match="is refused"):
            _client(double).put_blob(digest_of(b"{}"), b"{}")
        _log_in(docker, double)
        client = _client(double)
        client.put_whole(digest, whole, None)
        client.put_manifest(_manifest(client), tag="v3")
        assert double.blobs[digest] == data


def _manifest(client: Registry) -> bytes:
    client.put_blob(digest_of(b"{}"), b"{}")
    config = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": digest_of(b"{}"), "size": 2}
    kind = "application/vnd.oci.image.manifest.v1+json"
    return json.dumps({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": []}).encode()


def test_a_token_for_reading_is_had_without_a_login_where_that_is_allowed() -> None:
    with registry(auth="bearer", anonymous_pull=True, blobs={digest_of(b"x"): b"x"}) as double:
        assert _client(double).blob(digest_of(b"x"), 1) == b"x"
        assert set(double.tokens.values()) == {"pull"}


def test_a_token_that_ends_meanwhile_is_renewed(tmp_path: Path, docker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_SEGMENTS", 1)
    whole, data, digest = _whole(tmp_path)

    def expire(handler: Handler) -> bool:
        handler.shelf.expire()  # type: ignore[attr-defined]
        return False

    with registry(only("PATCH", 1, expire), auth="bearer") as double:
        _log_in(docker, double)
        client = _client(double)
        client.put_whole(digest, whole, None)
        assert double.blobs[digest] == data
        source = client.blob_source(digest)
        double.expire()
        assert read(source, 100, 1_000_000) == data[1_000_000:1_000_100]


@pytest.mark.parametrize(
    "challenge",
    [
        'Bearer realm="http://192.0.2.1/token"',
        'Bearer realm="file:///token"',
        'Bearer service="x"',
        'Bearer realm="https://user:pass@192.0.2.1/"',
    ],
)
def test_attack_a_challenge_does_not_lead_the_login_elsewhere(docker: Path, challenge: str) -> None:
    with registry(answering(401, {"WWW-Authenticate": challenge})) as double:
        _log_in(docker, double)
        with pytest.raises((FormatError, StorageError)):
            _client(double).blob(digest_of(b"x"), 1)
        assert all("Authorization" not in headers or "/token" in str(headers) for headers in double.headers[:1])


@pytest.mark.parametrize("challenge", ["Basic", "Negotiate", "Digest realm=x"])
def test_a_login_that_is_missing_or_of_a_kind_that_we_do_not_know_is_told(challenge: str) -> None:
    with (
        registry(answering(401, {"WWW-Authenticate": challenge})) as double,
        pytest.raises(StorageError, match="wants a login") as caught,
    ):
        _client(double).blob(digest_of(b"x"), 1)
    assert "docker login" in caught.value.hints[0]


@pytest.mark.parametrize("body", [b"", b"{}", b'{"token": 5}', b'{"token": "a\\r\\nX-Injected: 1"}', b"x" * 100_000])
def test_attack_a_token_that_is_none_is_refused(body: bytes) -> None:
    def token(handler: Handler) -> bool:
        return handler.place == "/token" and answering(200, {}, body)(handler)

    with registry(token, auth="bearer") as double, pytest.raises(FormatError):
        _client(double).blob(digest_of(b"x"), 1)


def test_attack_a_blob_of_another_digest_is_refused() -> None:
    with registry(blobs={digest_of(b"x"): b"y"}) as double, pytest.raises(TamperError, match="another digest"):
        _client(double).blob(digest_of(b"x"), 1)


def test_attack_a_blob_larger_than_its_descriptor_is_refused() -> None:
    with (
        registry(blobs={digest_of(b"x"): b"x" * 1000}) as double,
        pytest.raises(FormatError, match="more than the 1 bytes"),
    ):
        _client(double).blob(digest_of(b"x"), 1)


def test_attack_a_manifest_of_another_digest_is_refused() -> None:
    digest = digest_of(b"{}")
    with registry(manifests={digest: b"{ }"}) as double, pytest.raises(TamperError, match="another digest"):
        _client(double, f"@{digest}").manifest()
    with registry(manifests={digest: b"{}"}) as double:
        assert _client(double, f"@{digest}").manifest() == (b"{}", digest)


def test_attack_a_manifest_without_end_is_refused() -> None:
    with (
        registry(manifests={"v3": b" " * (4 * 1024 * 1024 + 1)}) as double,
        pytest.raises(FormatError, match="more than"),
    ):
        _client(double).manifest()


def test_what_is_missing_is_told_and_what_is_busy_asked_again() -> None:
    with registry() as double:
        with pytest.raises(NotFoundError):
            _client(double).manifest()
        with pytest.raises(NotFoundError):
            _client(double).blob_source(digest_of(b"x"))
    with registry(only("GET", 0, answering(503)), manifests={"v3": b"{}"}) as double:
        assert _client(double).manifest()[0] == b"{}"
    patient = replace(QUICK, attempts=1)
    with registry(answering(503)) as double, pytest.raises(StorageError, match="503"):
        Registry(parse_reference(f"oci://{double.host}/models/fraud:v3"), patient).manifest()
