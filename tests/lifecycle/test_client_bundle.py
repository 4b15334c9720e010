"""The list of clients: it comes back as it was, and what is not one is refused."""

from collections.abc import Callable
from typing import Any

import pytest

from palladion import canonical
from palladion.clock import timestamp
from palladion.errors import FormatError
from palladion.lifecycle import client_bundle
from palladion.lifecycle.client_bundle import (
    Bundle,
    client_there,
    decode_bundle,
    encode_bundle,
    new_bundle,
)
from palladion.registry import Client, ClientIdentity, ClientKey

from .installations import NOW


def _bundle() -> Bundle:
    client = Client("1" * 16, "acme", "web", ("predict:fraud",), "watched", NOW, None)
    key = ClientKey("pall_live_1", client.id, NOW, NOW, None)
    identity = ClientIdentity(1, client.id, "spiffe", "spiffe://example.org/a", NOW, None)
    other = Client("2" * 16, "acme", "other", (), "trusted", NOW, NOW)
    return new_bundle(
        "a" * 16,
        b"\6" * 32,
        NOW,
        [client_there(client, "odd\nvery", [(key, b"\5" * 32)], [identity]), client_there(other, "", [], [])],
    )


def _document() -> dict[str, Any]:
    return dict(canonical.decode(encode_bundle(_bundle()), size_max=1 << 20, what="it"))


def test_it_comes_back() -> None:
    bundle = decode_bundle(encode_bundle(_bundle()), what="it")
    assert bundle == _bundle()
    assert bundle.clients[0].keys[0].row("1" * 16) == ClientKey("pall_live_1", "1" * 16, NOW, NOW, None)


def test_it_does_not_print_what_hashes_are_keyed_with() -> None:
    assert "06" * 32 not in repr(_bundle())


BREAKS: list[tuple[str, Callable[[dict[str, Any]], object]]] = [
    ("another version", lambda d: d.update(v=2)),
    ("no version", lambda d: d.pop("v")),
    ("one member more", lambda d: d.update(extra=1)),
    ("no pepper", lambda d: d.update(pepper="")),
    ("no gate", lambda d: d.update(gate="A" * 16)),
    ("no moment", lambda d: d.update(issued="yesterday")),
    ("a client twice", lambda d: d["clients"].append(d["clients"][0])),
    ("a name twice", lambda d: d["clients"][1].update(name="web")),
    ("a key twice", lambda d: d["clients"][1].update(keys=d["clients"][0]["keys"])),
    ("an identity of two", lambda d: d["clients"][1].update(identities=d["clients"][0]["identities"])),
    ("a name that is none", lambda d: d["clients"][0].update(name="A b")),
    ("a standing that is none", lambda d: d["clients"][0].update(standing="beloved")),
    ("a client's moment", lambda d: d["clients"][0].update(created="2026")),
    ("a key's moment", lambda d: d["clients"][0]["keys"][0].update(expires="2026")),
    ("an identity's moment", lambda d: d["clients"][0]["identities"][0].update(created="2026")),
    ("a hash that is short", lambda d: d["clients"][0]["keys"][0].update(hash="ab")),
    ("a prefix with blanks", lambda d: d["clients"][0]["keys"][0].update(prefix="a b")),
    ("an escape sequence as identity", lambda d: d["clients"][0]["identities"][0].update(value="\x1b[2J")),
    ("an escape sequence as reason", lambda d: d["clients"][0].update(reason="\x1b[2J")),
    ("an escape sequence as scope", lambda d: d["clients"][0].update(scopes=["\x1b[2J"])),
]


@pytest.mark.parametrize("spoil", [item[1] for item in BREAKS], ids=[item[0] for item in BREAKS])
def test_what_is_none_is_refused(spoil: Callable[[dict[str, Any]], object]) -> None:
    document = _document()
    spoil(document)
    with pytest.raises(FormatError, match="it"):
        decode_bundle(canonical.encode(document), what="it")


def test_more_than_readers_accept_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_bundle, "BUNDLE_BYTES_MAX", 100)
    with pytest.raises(ValueError, match="at most 100 are read"):
        encode_bundle(_bundle())


def test_a_pepper_has_its_length() -> None:
    with pytest.raises(ValueError, match="the pepper has 3 bytes"):
        new_bundle("a" * 16, b"abc", NOW, [])


def test_its_moments_are_canonical() -> None:
    assert _bundle().issued == timestamp(NOW)
    assert _bundle().issued_at == NOW
