"""Artefacts in a registry: pushed, pulled, pinned by digest, read by ranges, and not replaced by accident."""

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from palladion.errors import ConflictError, FormatError, NotFoundError, TamperError
from palladion.seal.lazy import open_lazily
from palladion.seal.trailer import Trailer
from palladion.transit.oci import MANIFEST_TYPE, digest_of
from palladion.transit.places import open_url
from palladion.transit.pull import pull
from palladion.transit.push import push
from palladion.transit.store import beside
from tests.seal.factories import Parts
from tests.transit.factories import QUICK, Sealed, sealed
from tests.transit.registries import registry
from tests.transit.servers import Handler

pytestmark = pytest.mark.service  # servers on loopback


@pytest.fixture(autouse=True)
def _no_logins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "none"))


@pytest.fixture
def made(tmp_path: Path) -> Sealed:
    return sealed(tmp_path / "made")


def _address(host: str, tag: str = ":v3") -> str:
    return f"oci://{host}/models/fraud{tag}"


def test_an_artefact_goes_and_comes_with_what_lies_beside_it(tmp_path: Path, made: Sealed) -> None:
    beside(made.path, ".license").write_bytes(b"licence")
    with registry() as double:
        address = _address(double.host)
        done = push(made.path, address, made.publishers, limits=QUICK)
        assert (done.sent, done.sidecars, done.what) == (True, (".license",), address)
        assert not push(made.path, address, made.publishers, limits=QUICK).sent
        pulled = pull(address, tmp_path / "x", made.publishers, limits=QUICK)
        assert (tmp_path / "x").read_bytes() == made.data
        assert [path.read_bytes() for path in pulled.sidecars] == [b"licence"]
        pinned = _address(double.host, f"@{digest_of(double.manifests['v3'])}")
        pull(pinned, tmp_path / "y", made.publishers, limits=QUICK)
        with pytest.raises(ConflictError, match="a push goes to a tag"):
            push(sealed(tmp_path / "other", party=made.party).path, pinned, made.publishers, replace=True)


def test_an_artefact_is_read_where_it_lies(made: Sealed) -> None:
    with registry() as double:
        push(made.path, _address(double.host), made.publishers, limits=QUICK)
        sent = double.sent_bytes
        source = open_url(_address(double.host), limits=QUICK)
        with open_lazily(source, [made.party.identity], made.publishers) as lazy:
            assert bytes(lazy.read("model.bin")) == made.party.open(made.path)["model.bin"]
        assert double.sent_bytes - sent < len(made.data) + 1_400_000


def test_another_artefact_under_the_tag_is_kept_unless_it_is_to_be_replaced(tmp_path: Path, made: Sealed) -> None:
    other = sealed(tmp_path / "other", party=made.party)
    with registry() as double:
        address = _address(double.host)
        push(other.path, address, made.publishers, limits=QUICK)
        before = dict(double.manifests)
        with pytest.raises(ConflictError, match="lies fraud version 3"):
            push(made.path, address, made.publishers, limits=QUICK)
        assert double.manifests == before
        push(made.path, address, made.publishers, replace=True, limits=QUICK)
        pull(address, tmp_path / "x", made.publishers, limits=QUICK)
        assert (tmp_path / "x").read_bytes() == made.data


def test_an_artefact_that_appears_meanwhile_is_kept(made: Sealed) -> None:
    def race(handler: Handler) -> bool:
        if handler.command == "PATCH":
            handler.shelf.manifests["v3"] = b"theirs"  # type: ignore[attr-defined]
        return False

    with registry(race) as double:
        with pytest.raises(ConflictError, match="is another artefact"):
            push(made.path, _address(double.host), made.publishers, limits=QUICK)
        assert double.manifests == {"v3": b"theirs"}


def test_what_is_no_artefact_of_ours_is_neither_read_nor_replaced(tmp_path: Path, made: Sealed) -> None:
    config = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest_of(b"{}"), "size": 2}
    image = json.dumps({"schemaVersion": 2, "config": config, "layers": []}).encode()
    with registry(manifests={"v3": image}) as double:
        with pytest.raises(FormatError, match="holds 0 sealed files"):
            pull(_address(double.host), tmp_path / "x", made.publishers, limits=QUICK)
        with pytest.raises(FormatError, match="holds 0 sealed files"):
            push(made.path, _address(double.host), made.publishers, limits=QUICK)
        with pytest.raises(NotFoundError):
            pull(_address(double.host, ":v4"), tmp_path / "x", made.publishers, limits=QUICK)


def test_attack_recipients_changed_under_a_digest_are_noticed(tmp_path: Path, made: Sealed) -> None:
    """The publisher does not sign the wraps; the digest of the artefact covers them."""
    with registry() as double:
        push(made.path, _address(double.host), made.publishers, limits=QUICK)
        digest = digest_of(made.data)
        parts = Parts.of(made.path)
        other = bytes(parts.with_trailer(_other_blob).write(tmp_path / "changed").read_bytes())
        assert len(other) == len(double.blobs[digest])
        double.blobs[digest] = other
        with pytest.raises(TamperError, match="is not what its digest names"):
            pull(_address(double.host), tmp_path / "x", made.publishers, limits=QUICK)
    assert not (tmp_path / "x").exists()


def _other_blob(trailer: Trailer) -> Trailer:
    wrap = trailer.wraps[0]
    return replace(trailer, wraps=(replace(wrap, blob=os.urandom(len(wrap.blob))),))


@pytest.fixture
def real_registry(tmp_path: Path) -> Iterator[str]:
    """CNCF distribution (Debian's docker-registry), where it is installed."""
    program = shutil.which("docker-registry") or shutil.which("registry")
    if program is None:
        pytest.skip("this needs the registry of CNCF distribution: apt install docker-registry")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = tmp_path / "registry.yml"
    config.write_text(
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {tmp_path / 'blobs'}}}}}\n"
        f"http: {{addr: 127.0.0.1:{port}}}\n"
    )
    with subprocess.Popen(
        [program, "serve", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as running:
        assert running.stderr is not None
        for line in running.stderr:
            if b"listening on" in line:
                break
        try:
            yield f"127.0.0.1:{port}"
        finally:
            running.stderr.close()
            running.terminate()


@pytest.mark.service
def test_a_real_registry_takes_and_gives_artefacts(tmp_path: Path, real_registry: str) -> None:
    made = sealed(tmp_path / "made", segments=20)
    beside(made.path, ".license").write_bytes(b"licence")
    address = _address(real_registry)
    assert push(made.path, address, made.publishers, limits=QUICK).sent
    assert not push(made.path, address, made.publishers, limits=QUICK).sent
    pulled = pull(address, tmp_path / "x", made.publishers, limits=QUICK)
    assert (tmp_path / "x").read_bytes() == made.data
    assert [path.read_bytes() for path in pulled.sidecars] == [b"licence"]
    other = sealed(tmp_path / "other", party=made.party)
    with pytest.raises(ConflictError):
        push(other.path, address, made.publishers, limits=QUICK)
    assert push(other.path, address, made.publishers, replace=True, limits=QUICK).sent
    asked = Request(f"http://{real_registry}/v2/models/fraud/manifests/v3", headers={"Accept": MANIFEST_TYPE})
    with urlopen(asked) as answer:
        digest = digest_of(answer.read())
    with open_lazily(
        open_url(_address(real_registry, f"@{digest}"), limits=QUICK), [made.party.identity], made.publishers
    ) as lazy:
        assert lazy.read("model.bin") == made.party.open(other.path)["model.bin"]
