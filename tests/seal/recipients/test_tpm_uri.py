"""Names of keys in a TPM: one text for each, and a refusal of every other one."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion.errors import FormatError
from palladion.seal.recipients.tpm_public import TpmPublic, template
from palladion.seal.recipients.tpm_uri import PRIVATE_BYTES_MAX, URI_CHARACTERS_MAX, TpmUri
from tests.seal.recipients.tpm_vectors import KEY, NAME, PUBLIC

TEXT = str(KEY)
HALVES, OPTIONS = TEXT.split("?")

paths = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x17F), min_size=1, max_size=30).map(
    lambda text: Path("/etc") / text.replace("/", "_")
)


def made(*, policy: bool, pin: bool) -> TpmPublic:
    """The public area of the same point, with the attributes of a key that was made so."""
    return TpmPublic.parse(template(policy=bytes(32 * policy), pin=pin)[:-4] + PUBLIC[-68:])


@given(
    private=st.binary(min_size=1, max_size=PRIVATE_BYTES_MAX),
    parent=st.sampled_from(["owner", "81000001", "81ffffff"]),
    pcrs=st.sets(st.integers(0, 23)).map(lambda found: tuple(sorted(found))),
    pin=st.one_of(st.none(), st.just(True), paths),
    tcti=st.sampled_from(
        ["device:/dev/tpmrm0", "device:/dev/tpm1", "swtpm:path=/run/s", "mssim:host=::1,port=1", "tabrmd:"]
    ),
)
def test_a_text_names_one_key_and_a_key_has_one_text(
    private: bytes, parent: str, pcrs: tuple[int, ...], pin: bool | Path | None, tcti: str
) -> None:
    uri = TpmUri(
        public=made(policy=bool(pcrs), pin=pin is True or (isinstance(pin, Path) and str(pin).isprintable())),
        private=private,
        parent=parent,
        parent_name=NAME,
        pcrs=pcrs,
        asks_pin=pin is True,
        pin_source=pin if isinstance(pin, Path) and str(pin).isprintable() else None,
        tcti=tcti,
    )
    assert TpmUri.parse(str(uri)) == uri
    assert str(TpmUri.parse(str(uri))) == str(uri)


@given(st.data())
def test_a_changed_text_is_refused_or_names_one_key_still(data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(TEXT) - 1))
    changed = TEXT[:place] + data.draw(st.text(max_size=3)) + TEXT[place + data.draw(st.integers(0, 3)) :]
    try:
        uri = TpmUri.parse(changed)
    except FormatError:
        return
    assert TpmUri.parse(str(uri)) == uri


def test_a_new_key_needs_no_more_than_the_scheme() -> None:
    assert TpmUri.parse("tpm:") == TpmUri()
    assert str(TpmUri()) == "tpm:"
    assert TpmUri.parse("tpm:?pcrs=0,7&pin=ask") == TpmUri(pcrs=(0, 7), asks_pin=True)


def test_the_private_half_is_not_printed() -> None:
    assert "private" not in repr(KEY)


@pytest.mark.parametrize(
    "text",
    [
        "", "tpm", "TPM:", "pkcs11:", "tpm:?x=1", "tpm:?pcrs", "tpm:?pcrs=", "tpm:?pcrs=24", "tpm:?pcrs=7,0",
        "tpm:?pcrs=7,7", "tpm:?pcrs=a", "tpm:?pcrs=0,", "tpm:?pcrs=" + ",".join(["1"] * 30), "tpm:?pcrs=1&pcrs=1",
        "tpm:?pin=1234", "tpm:?pin=ask&pin-source=/x", "tpm:?pin-source=x", "tpm:?pin-source=//x",
        "tpm:?pin-source=/%0A",
        "tpm:?parent=80000001", "tpm:?parent=81000001x", "tpm:?parent=platform", f"tpm:?parent-name={NAME.hex()}",
        "tpm:?tcti=cmd:sh", "tpm:?tcti=libevil.so", "tpm:?tcti=device:/dev/sda", "tpm:?tcti=device:/dev/tpmrm0/../sda",
        "tpm:?tcti=pcap:x", f"tpm:?tcti=swtpm:{'x' * 201}",
        HALVES, f"{HALVES}?pcrs=7", f"{HALVES}?parent-name=00", f"{HALVES}?parent-name={NAME.hex()[:-2]}",
        f"{HALVES.split('.')[0]}?{OPTIONS}", f"{HALVES}.AAAA?{OPTIONS}", f"{HALVES}=?{OPTIONS}",
        f"{HALVES[:-1]}!?{OPTIONS}",
        f"tpm:.AAAA?{OPTIONS}", f"tpm:AAAA.AAAA?{OPTIONS}", "tpm:" + "A" * URI_CHARACTERS_MAX,
        f"{HALVES.split('.')[0]}.{'A' * 4 * (PRIVATE_BYTES_MAX // 3 + 1)}?{OPTIONS}",
    ],
)  # fmt: skip
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(FormatError, match="the TPM"):
        TpmUri.parse(text)


@pytest.mark.parametrize("pcrs", [(), (7,)])
@pytest.mark.parametrize("pin", [False, True])
def test_what_a_use_needs_is_what_the_key_was_made_with(pcrs: tuple[int, ...], pin: bool) -> None:
    """Without its PIN's option an empty PIN would be tried, at each start, until the TPM locks."""
    key = replace(KEY, public=made(policy=bool(pcrs), pin=pin), pcrs=pcrs, asks_pin=pin)
    assert TpmUri.parse(str(key)) == key
    with pytest.raises(FormatError, match="has a PIN" if pin else "has no PIN"):
        TpmUri.parse(str(replace(key, asks_pin=not pin)))
    with pytest.raises(FormatError, match="bound to"):
        TpmUri.parse(str(replace(key, pcrs=() if pcrs else (7,))))


def test_a_pin_in_the_text_is_refused_and_not_repeated() -> None:
    with pytest.raises(FormatError, match="a PIN never stands in the text") as caught:
        TpmUri.parse("tpm:?pin=4711")
    assert "4711" not in caught.value.message
