"""Addresses: which kind of place each means, and what a file from there is called."""

import sys
from pathlib import Path

import pytest

from palladion.errors import FormatError, MissingExtraError, NotFoundError, PalladionError
from palladion.seal.reader import inspect_file
from palladion.transit.folder import FolderStore
from palladion.transit.oci_store import OciStore
from palladion.transit.places import file_name, open_url, parse_place
from palladion.transit.web_store import WebStore
from tests.transit.factories import QUICK, sealed
from tests.transit.servers import serving


@pytest.mark.parametrize(
    ("text", "kind", "what"),
    [
        ("a/b.sealed", FolderStore, "a/b.sealed"),
        ("file:///a/b%20c", FolderStore, "/a/b c"),
        ("file:/a/b", FolderStore, "/a/b"),
        ("file://localhost/a/b", FolderStore, "/a/b"),
        ("https://example.com/a?secret", WebStore, "https://example.com/a"),
        ("http://127.0.0.1:8000/a", WebStore, "http://127.0.0.1:8000/a"),
        ("oci://registry.example/models/fraud:v3", OciStore, "oci://registry.example/models/fraud:v3"),
    ],
)
def test_an_address_means_a_place(text: str, kind: type, what: str) -> None:
    place = parse_place(text, QUICK)
    assert (type(place), place.what) == (kind, what)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("ftp://example.com/a", "no kind of place"),
        ("memory://a", "no kind of place"),
        ("http://example.com/a", "not encrypted"),
        ("file://elsewhere/a", "is not file:///PATH"),
        ("file:a", "is not file:///PATH"),
        ("oci://registry.example/fraud", "neither a tag"),
        ("s3://bucket", "is not s3://BUCKET/KEY"),
        ("s3://Bucket_/key", "is not s3://BUCKET/KEY"),
    ],
)
def test_what_is_no_address_is_a_mistake_of_the_caller(text: str, reason: str) -> None:
    with pytest.raises(PalladionError, match=reason) as caught:
        parse_place(text, QUICK)
    assert caught.value.exit_code == 2


def test_what_needs_an_extra_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(MissingExtraError) as caught:
        parse_place("s3://bucket/key", QUICK)
    assert caught.value.hints == ("pip install 'palladion[aws]'",)
    monkeypatch.setitem(sys.modules, "fsspec", None)
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(MissingExtraError) as caught:
        parse_place("gs://bucket/key", QUICK)
    assert caught.value.hints[0] == "pip install 'palladion[cloud]'"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("https://example.com/models/fraud%20v3.sealed?X-Amz-Signature=a/b", "fraud v3.sealed"),
        ("s3://bucket/models/fraud%20?v3.sealed", "fraud%20?v3.sealed"),
        ("gs://bucket/models/fraud.sealed", "fraud.sealed"),
        ("oci://registry.example:5000/models/fraud:v3", "fraud.sealed"),
        (f"oci://registry.example/fraud@sha256:{'0' * 64}", "fraud.sealed"),
        (f"oci://registry.example/fraud:v3@sha256:{'0' * 64}", "fraud.sealed"),
        ("file:///mnt/fraud.sealed", "fraud.sealed"),
        ("../fraud.sealed", "fraud.sealed"),
    ],
)
def test_a_file_is_called_what_its_address_ends_in(text: str, name: str) -> None:
    assert file_name(text) == name


@pytest.mark.parametrize(
    "text",
    [
        "https://example.com",
        "https://example.com/a/",
        "https://example.com/..%2f..%2fetc%2fpasswd",
        "https://example.com/.bashrc",
        "https://example.com/%2e%2e",
        "https://example.com/a%0ab",
        "https://example.com/" + "a" * 201,
    ],
)
def test_an_address_that_ends_in_no_name_asks_for_one(text: str) -> None:
    with pytest.raises(PalladionError, match="does not end in the name of a file"):
        file_name(text)


def test_any_place_opens_as_a_source(tmp_path: Path) -> None:
    made = sealed(tmp_path)
    with serving({"/fraud.sealed": made.data}) as shelf:
        for text in (str(made.path), made.path.as_uri(), shelf.url("/fraud.sealed")):
            source = open_url(text)
            assert inspect_file(source) == inspect_file(made.path)
            source.close()


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no such file"):
        open_url(str(tmp_path / "x"))
    with serving() as shelf, pytest.raises(NotFoundError):
        open_url(shelf.url("/x"), limits=QUICK)


def test_what_is_not_sealed_is_refused(tmp_path: Path) -> None:
    with serving({"/x": b"<html>hello</html>"}) as shelf, pytest.raises(FormatError, match="is not a sealed file"):
        inspect_file(open_url(shelf.url("/x"), limits=QUICK))
