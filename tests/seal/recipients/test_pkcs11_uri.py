"""PKCS#11 URIs: what they name, and what is refused in them without being quoted."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion.errors import FormatError
from palladion.seal.recipients.pkcs11_uri import Pkcs11Uri

MODULE = "module-path=/usr/lib/softhsm/libsofthsm2.so"
FULL = f"pkcs11:token=troy;serial=0001;object=kek;id=%00%01%FF?{MODULE}&pin-source=/etc/palladion/pin"
_names = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=8)
_paths = _names.map(lambda name: Path(f"/usr/{name.replace('/', '')}x"))


def test_a_uri_says_which_key_on_which_token() -> None:
    uri = Pkcs11Uri.parse(FULL)
    assert uri == Pkcs11Uri(
        module_path=Path("/usr/lib/softhsm/libsofthsm2.so"),
        token="troy",
        serial="0001",
        label="kek",
        id=b"\x00\x01\xff",
        pin_source=Path("/etc/palladion/pin"),
    )
    assert str(uri) == FULL


@given(st.builds(Pkcs11Uri, _paths, _names, st.sampled_from(["", "1f"]), _names, st.binary(max_size=20), _paths))
def test_uris_survive_their_text(uri: Pkcs11Uri) -> None:
    text = str(uri)
    assert text.isascii()
    assert " " not in text
    assert Pkcs11Uri.parse(text) == uri


@pytest.mark.parametrize(
    "text",
    [
        f"pkcs11:object=kek;token=troy;type=secret-key?pin-source=file:/etc/pin&{MODULE}",
        f"pkcs11:token=%74roy;object=k%65k?{MODULE}&pin-source=file:///etc/pin",
    ],
)
def test_one_key_has_one_text_however_it_is_written(text: str) -> None:
    assert str(Pkcs11Uri.parse(text)) == f"pkcs11:token=troy;object=kek?{MODULE}&pin-source=/etc/pin"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("pkcs12:token=troy", "does not begin with pkcs11:"),
        ("pkcs11:", "is none of"),
        (f"pkcs11:object=kek?{MODULE}", "names no token"),
        (f"pkcs11:token=troy?{MODULE}", "names no key"),
        ("pkcs11:token=troy;object=kek", "lacks a module-path"),
        ("pkcs11:token=troy;object=kek?module-path=lib.so", "absolute path"),
        ("pkcs11:token=troy;object=kek?module-path=//host/lib.so", "absolute path"),
        (f"pkcs11:token=troy;object=kek?{MODULE}&pin-source=%7Ccat", "lacks a pin-source that is the absolute path"),
        (f"pkcs11:token=troy;object=kek?{MODULE}&pin-source=pin", "lacks a pin-source that is the absolute path"),
        (f"pkcs11:token=troy;object=kek?{MODULE}&{MODULE}", "module-path twice"),
        (f"pkcs11:token=troy;token=troy;object=kek?{MODULE}", "token twice"),
        (f"pkcs11:token=troy;object=kek;type=private?{MODULE}", "another type"),
        (f"pkcs11:token=troy;object=kek;slot-id=1?{MODULE}", "is none of"),
        (f"pkcs11:token=troy;object=kek?{MODULE}&module-name=softhsm2", "is none of"),
        (f"pkcs11:token=troy;object=kek;?{MODULE}", "is none of"),
        (f"pkcs11:token={'t' * 33};object=kek?{MODULE}", "33 bytes in token"),
        (f"pkcs11:token=troy;object=?{MODULE}", r"has to be written as %XX"),
        (f"pkcs11:token=troy;object=a b?{MODULE}", r"has to be written as %XX"),
        (f"pkcs11:token=troy;object=a%zz?{MODULE}", r"has to be written as %XX"),
        (f"pkcs11:token=troy;object=kék?{MODULE}", r"has to be written as %XX"),
        (f"pkcs11:token=troy;object=%1B[2J?{MODULE}", "cannot be printed"),
        (f"pkcs11:token=troy;object=%FF?{MODULE}", "cannot be printed"),
        (f"pkcs11:token=troy;object=kek;id={'%00' * 65}?{MODULE}", "65 bytes in id"),
        (f"pkcs11:token=troy;object={'k' * 3000}?{MODULE}", "at most 2048"),
    ],
)
def test_uris_that_name_no_key_are_refused(text: str, reason: str) -> None:
    with pytest.raises(FormatError, match=reason):
        Pkcs11Uri.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        f"pkcs11:token=troy;object=kek?{MODULE}&pin-value=hunter2",
        f"pkcs11:token=troy;object=kek?pin-value=hunter2&{MODULE}&pin-source=/etc/pin",
        f"pkcs11:token=troy;object=kek;pin-value=hunter2?{MODULE}",
        f"pkcs11:token=troy;object=kek?{MODULE}&pin-vlaue=hunter2",
        f"pkcs11:token=troy;object=kek?{MODULE}&hunter2",
        f"pkcs11:token=troy;object=kek?{MODULE}&pin-source=hunter2",
    ],
)
def test_a_pin_in_the_uri_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(FormatError) as refusal:
        Pkcs11Uri.parse(text)
    assert "hunter2" not in f"{refusal.value} {refusal.value.hints}"


def test_the_refusal_of_a_pin_says_why_and_what_to_do() -> None:
    with pytest.raises(FormatError, match="stored, shown and logged") as refusal:
        Pkcs11Uri.parse(f"pkcs11:token=troy;object=kek?{MODULE}&pin-value=1234")
    assert "pin-source=FILE" in refusal.value.hints[0]
