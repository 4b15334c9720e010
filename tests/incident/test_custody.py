"""Custody: digests of what was acquired, on record, for files, folders, URLs; and by which digest a model is known."""

import json
import os
import ssl
import threading
from collections.abc import Iterator
from datetime import timedelta
from hashlib import sha256, sha512
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from palladion.errors import FormatError, NotFoundError, PalladionError, StorageError
from palladion.incident import custody as module
from palladion.incident.cases import suspend_case
from palladion.incident.custody import Handling, digest_file, record_custody
from palladion.ledger.record import decode_record
from palladion.model.digest import model_digest
from palladion.model.read import read_weights
from tests.gate import certificates
from tests.lifecycle.installations import ACTOR, NOW, Made, make
from tests.models import safetensors_bytes, write
from tests.registry.factories import add_client


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(tmp_path_factory.mktemp("custody"))


@pytest.fixture(scope="module")
def case(made: Made) -> str:
    with made.installation.open_registry() as registry, registry.write() as records:
        return suspend_case(records, [add_client(records, "one").id], reason="x", actor="gate")[0].id


def _record(made: Made, case: str, *sources: Path | str, keep: Path | None = None, **changed: Any) -> dict[str, Any]:
    """Record it; the details of the last record."""
    fetch = changed.pop("fetch", None)
    told: dict[str, Any] = {"step": "acquired", "by": "J. Roe", "place": "lab", "at": NOW, "note": ""} | changed
    texts = [str(source) for source in sources]
    record_custody(made.installation, case, texts, Handling(**told), keep=keep, actor=ACTOR, fetch=fetch)
    reader = made.installation.read_ledger()
    record = decode_record(reader.entry(reader.size - 1), what="it")
    assert (record.kind, record.actor) == ("custody.recorded", ACTOR)
    assert record.subject.startswith(f"incident:{case}")
    return record.details


def test_a_file_is_recorded_with_its_digests(made: Made, case: str, tmp_path: Path) -> None:
    path = write(tmp_path / "capture.jsonl", b"line\n")
    details = _record(made, case[:5], path)
    assert (details["kind"], details["source"], details["content"]) == ("file", "capture.jsonl", None)
    assert details["files"] == [
        {
            "name": "capture.jsonl",
            "bytes": 5,
            "sha256": sha256(b"line\n").hexdigest(),
            "sha512": sha512(b"line\n").hexdigest(),
        }
    ]


def test_a_model_is_recorded_by_the_digest_that_prove_knows(made: Made, case: str, tmp_path: Path) -> None:
    path = write(tmp_path / "leaked.safetensors", safetensors_bytes(1))
    assert _record(made, case, path)["content"] == model_digest(read_weights(path)).hex()


def test_a_folder_is_recorded_file_by_file(made: Made, case: str, tmp_path: Path) -> None:
    folder = tmp_path / "found"
    (folder / "deep").mkdir(parents=True)
    write(folder / "b.txt", b"b")
    write(folder / "deep" / "a.txt", b"a")
    details = _record(made, case, folder)
    assert (details["kind"], details["source"]) == ("folder", "found")
    assert [item["name"] for item in details["files"]] == ["b.txt", "deep/a.txt"]


def test_what_a_url_gives_is_kept_under_its_digest(made: Made, case: str, tmp_path: Path) -> None:
    keep = tmp_path / "kept"
    details = _record(
        made,
        case,
        "https://thief.example/model",
        keep=keep,
        fetch=lambda _url: (200, iter([b"stolen ", b"weights"]), None),
    )
    digest = sha256(b"stolen weights").hexdigest()
    assert (details["kind"], details["status"], details["files"][0]["sha256"]) == ("url", 200, digest)
    assert (keep / digest).read_bytes() == b"stolen weights"
    assert [path.name for path in keep.iterdir()] == [digest]


def test_an_address_that_fails_half_way_leaves_nothing(made: Made, case: str, tmp_path: Path) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"some"
        raise StorageError("it ended too early")

    size, keep = made.installation.read_ledger().size, tmp_path / "kept"
    with pytest.raises(StorageError, match="ended too early"):
        _record(made, case, "https://thief.example/model", keep=keep, fetch=lambda _url: (200, pieces(), None))
    assert list(keep.iterdir()) == []
    assert made.installation.read_ledger().size == size


def test_an_address_without_end_is_cut_off(
    made: Made, case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FETCHED_BYTES_MAX", 10)
    with pytest.raises(StorageError, match="more than the 10 bytes"):
        _record(
            made,
            case,
            "https://thief.example/",
            keep=tmp_path / "k",
            fetch=lambda _url: (200, iter([b"12345678"] * 9), None),
        )


def test_an_address_is_asked_over_http(made: Made, case: str, tmp_path: Path) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(404)
            self.send_header("Content-Length", "4")
            self.end_headers()
            self.wfile.write(b"gone")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            return

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.handle_request, daemon=True).start()
    details = _record(made, case, f"http://127.0.0.1:{server.server_port}/model", keep=tmp_path / "kept")
    server.server_close()
    assert (details["status"], details["files"][0]["bytes"]) == (404, 4)


@pytest.mark.parametrize(
    ("sources", "changed", "complaint"),
    [
        (["https://thief.example/"], {}, "has to be kept"),
        ([], {}, "0 sources"),
        (["x"] * 65, {}, "65 sources"),
        (["missing"], {}, "there is no missing"),
        (["x"], {"at": NOW + timedelta(seconds=1)}, "lies in the future"),
        (["x"], {"by": ""}, "who handled it"),
        (["x"], {"place": "a\nb"}, "control characters"),
        (["x"], {"note": "x" * 2001}, "2001 characters"),
        (["x"], {"step": "stolen"}, "the step"),
        (["https://thief.example/" + "x" * 400], {"keep": Path("k")}, "at most 400"),
    ],
)
def test_what_cannot_be_recorded_is_refused(
    made: Made, case: str, sources: list[str], changed: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(PalladionError, match=complaint):
        _record(made, case, *sources, **changed)


def test_a_case_has_to_exist(made: Made, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no incident"):
        _record(made, "ffffffff", write(tmp_path / "x", b"1"))


def test_a_folder_of_too_many_files_or_too_long_names_is_refused(made: Made, case: str, tmp_path: Path) -> None:
    for folder, names in (
        ("many", [str(number) for number in range(129)]),
        ("long", [f"{n:0240d}" for n in range(128)]),
    ):
        (tmp_path / folder).mkdir()
        for name in names:
            write(tmp_path / folder / name, b"")
        with pytest.raises(PalladionError) as refused:
            _record(made, case, tmp_path / folder)
        assert "into one archive first" in refused.value.hints[0]


@pytest.mark.parametrize("to", ["file", "folder", "nothing"])
def test_links_in_a_folder_are_refused_and_not_left_out(made: Made, case: str, tmp_path: Path, to: str) -> None:
    folder, outside = tmp_path / "found", tmp_path / "outside"
    (folder / "deep").mkdir(parents=True)
    outside.mkdir()
    write(folder / "a.txt", b"a")
    target = {"file": write(outside / "secret", b"s"), "folder": outside, "nothing": tmp_path / "missing"}[to]
    (folder / "deep" / "link").symlink_to(target)
    size = made.installation.read_ledger().size
    with pytest.raises(FormatError, match="deep/link is a link"):
        _record(made, case, folder)
    assert made.installation.read_ledger().size == size


@pytest.mark.parametrize("to", ["file", "folder", "nothing"])
def test_a_link_that_is_named_itself_is_refused(made: Made, case: str, tmp_path: Path, to: str) -> None:
    target = {"file": write(tmp_path / "x", b"1"), "folder": tmp_path, "nothing": tmp_path / "missing"}[to]
    link = tmp_path / "link"
    link.symlink_to(target)
    with pytest.raises(FormatError, match="is a link"):
        _record(made, case, link)
    with pytest.raises(FormatError, match="is a link"):
        digest_file(link, "link")


def test_a_link_that_is_put_in_the_place_of_a_file_meanwhile_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(write(tmp_path / "x", b"1"))
    monkeypatch.setattr(Path, "is_symlink", lambda _path: False)
    with pytest.raises(StorageError, match="symbolic link"):
        digest_file(tmp_path / "link", "link")


def test_a_folder_that_cannot_be_read_is_not_left_out(
    made: Made, case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "found"
    (folder / "closed").mkdir(parents=True)
    write(folder / "a.txt", b"a")
    scandir = os.scandir

    def closed(path: Any) -> Any:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(StorageError, match="permission denied"):
        _record(made, case, folder)


@pytest.mark.parametrize(
    "address", ["http://[x", "https://", "http:///x", "https://thief.example:port/x", "HTTP://[::1/"]
)
def test_an_address_that_is_none_is_said(made: Made, case: str, tmp_path: Path, address: str) -> None:
    with pytest.raises(PalladionError, match="the address cannot be read"):
        _record(made, case, address, keep=tmp_path / "k", fetch=lambda _url: pytest.fail("it was asked"))


@pytest.mark.parametrize(
    ("address", "recorded"),
    [
        ("https://s3.example/x?X-Amz-Signature=SECRET#SECRET", "https://s3.example/x?…"),
        ("https://user:SECRET@thief.example:8443/x", "https://thief.example:8443/x"),
        ("https://thief.example/x#SECRET", "https://thief.example/x"),
        ("https://[::1]/x", "https://[::1]/x"),
    ],
)
def test_credentials_of_an_address_are_used_and_not_recorded(
    made: Made, case: str, tmp_path: Path, address: str, recorded: str
) -> None:
    asked = []

    def fetch(url: str) -> tuple[int, Iterator[bytes], None]:
        asked.append(url)
        return 200, iter([b"stolen"]), None

    details = _record(made, case, address, keep=tmp_path / "kept", fetch=fetch)
    assert asked == [address]
    assert (details["source"], details["files"][0]["name"]) == (recorded, recorded)
    assert "SECRET" not in json.dumps(details)


@pytest.mark.parametrize("folder", [False, True])
def test_a_suspect_that_is_too_large_to_be_read_as_a_model_is_said_to_be(
    case: str, made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: bool
) -> None:
    path = tmp_path / "found" if folder else tmp_path / "leaked.safetensors"
    (path if folder else tmp_path).mkdir(exist_ok=True)
    data = safetensors_bytes(1)
    write(path / "model.safetensors" if folder else path, data)
    scan = made.installation.policy.scan
    handling = Handling("acquired", "J. Roe", "lab", NOW)

    def exhibit(bytes_max: int) -> module.Exhibit:
        policy = structs.replace(made.installation.policy, scan=structs.replace(scan, file_bytes_max=bytes_max))
        monkeypatch.setattr(made.installation, "policy", policy)
        _, recorded = record_custody(made.installation, case, [str(path)], handling, keep=None, actor=ACTOR)
        return recorded[0][0]

    small, enough = exhibit(len(data) - 1), exhibit(len(data))
    assert (small.content, small.too_large) == (None, True)
    assert (enough.content, enough.too_large) == (model_digest(read_weights(path)).hex(), False)


def test_a_name_that_is_no_text_is_refused(made: Made, case: str, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"x\xff")
    path.write_bytes(b"1")
    with pytest.raises(PalladionError, match="not UTF-8"):
        _record(made, case, path)


def test_a_pipe_is_no_file_and_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FormatError, match="not a regular file"):
        digest_file(tmp_path / "pipe", "pipe")


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "x", b"1" * 10)
    original = module._digested

    def meanwhile(name: str, pieces: Iterator[bytes]) -> module.Digests:
        found = original(name, pieces)
        path.write_bytes(b"2" * 11)
        return found

    monkeypatch.setattr(module, "_digested", meanwhile)
    with pytest.raises(FormatError, match="changed while it was read"):
        digest_file(path, "x")


def test_the_steps_and_categories_of_the_commands_are_those_of_the_code() -> None:
    from palladion.cli import incident_dossier
    from palladion.incident.measures import CATEGORIES

    assert json.dumps(incident_dossier._STEPS) == json.dumps(module.STEPS)
    assert tuple(incident_dossier._CATEGORIES) == CATEGORIES


def test_the_server_of_an_https_address_is_on_record(
    made: Made, case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "7")
            self.end_headers()
            self.wfile.write(b"weights")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            return

    authority = certificates.Authority(tmp_path)
    issued = authority.issue("server", [certificates.address("127.0.0.1")])
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(issued.path, issued.key)
    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.handle_request, daemon=True).start()
    details = _record(made, case, f"https://127.0.0.1:{server.server_port}/model", keep=tmp_path / "kept")
    server.server_close()
    assert details["server"]["address"] == f"127.0.0.1:{server.server_port}"
    assert details["server"]["certificates"][0]["sha256"] == issued.fingerprint
    assert details["server"]["certificates"][0]["issuer"] == "CN=authority"
    assert details["files"][0]["bytes"] == 7
