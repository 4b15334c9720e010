"""FLOE: published known answers, random access, and refusals."""

from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palladion.errors import FormatError, TamperError
from palladion.seal.floe import HEADER_BYTES, OVERHEAD_BYTES, Decryption, Encryption, Parameters

# Snowflake-Labs/floe-specification @ e466ef4: kats/. Key: 32 zero bytes. Associated data: "This is AAD".
KEY, DATA = bytes(32), b"This is AAD"
VECTORS = Path(__file__).resolve().parents[2] / ".." / "shared" / "vectors" / "floe"
SMALL = Parameters(40, rotation_bits=2)


# Four of them, so that a clone without the folder is tested too: name, parameters, ciphertext, plaintext.
KNOWN: list[tuple[str, Parameters, str, str]] = [
    (
        "java_lastSegAligned",
        SMALL,
        (
            "00000000002800000020ea1abfaa4f4aeb96c152ae87eace05f91ad5e1a7f4bec7dc92b79e6ea9d925cd29315fb4c1c3034c"
            "71162de9eede6095147a37171b78d0316f25d0124a04d8deffffffffa3b026ca128af0b79bafb550f9d298864fc5a413355c"
            "17d822e0acf6a78b6ae25b5df56600000028a34316dedf6ccc1a96d6de3e1d612b36b43a025b429dc539b96ca79bca0eb4ab"
            "0d3b0412"
        ),
        "935e679e8deaeecc300777f90606d92c",
    ),
    (
        "java_lastSegEmpty",
        SMALL,
        (
            "00000000002800000020e4fd1738289ec2a831a32ff254bc176033f565de7f15928355b3a8bb4694a67b3e5dbb9e3bb66087"
            "43b2451f6fd129a31d83b455a67eaf11be3b882dd8d3b10fffffffff1fdfeebb9f3d2c4af5f556e481d8c73c8ad1286a4a2c"
            "f73580f5eef7cd20922b5c430ddbffffffff777bc2da2eb1d497f77657cc4eb211fa9c5280b1f0cab8d6c9c34a81c3714007"
            "9c3d5cb1000000201832f5ffdd0e8529483ee8032c2fcd25779ddf459dcdd57fb3ba8d80"
        ),
        "b83fb512012054a0195ff30074ebd4a8",
    ),
    (
        "go_GCM256_IV256_64",
        Parameters(64),
        (
            "00000000004000000020b57c157a4855bdb2500cf55af49648e0fea0bfbac93407bc6b4fca9c471b018f869339a3eccec33f"
            "e43c2e124caadbf083e53390f9b2f1cd5d612cd50f2592affffffffff10bc888c8e6f0c6308feb9143a161347a94ac632e23"
            "81acb5f2fca4b554bc0a2eb47bfea26edda9ec26298b797ebda8571cb28e1d9ccb59687c2e78ffffffff829f847d58257efd"
            "d08766aebb6ada17795c39605acbc683928f2e7e822916147be7af0aa19f1d7e32b3d9038ee437dc566cf8980df2b85e9037"
            "a19d000000236ddde6266ddd8519ccb76228f4929eca37ca5c2df92a1b2004d615f191ad7d"
        ),
        (
            "b7f54726b914b689881ab315b032a633b452c1c59a43f430c1cc00a39d1a5eb4773dbc6b5f26255e0d3714694c9c9ffbfa8a"
            "db998aecbb0601a4cade83764b8b13ccaa"
        ),
    ),
    (
        "cpp_rotation",
        SMALL,
        (
            "00000000002800000020E8EA6A4346648779D21A18109D5671AFBAC8CD123D7B9B5AAFAAC1C05D399C8278038BE78C77A6AD"
            "AD7361D73983254EA4E2F32FC37AB97E25D10AC4AE53A704FFFFFFFFB43DA3E3D1543D9676220E71BABA14622FF32ACEC1C0"
            "6ABEB05E0AA1B7BDF78BFB6C2B1FFFFFFFFFB99D1F34291AA2D18B92B22A0A989FA976DE41180961C4E73DCD108F02BA8C25"
            "7966D972FFFFFFFFBD16EE95BF046568723647C65A9A40E61FA3EE71556DF75000A83E73F224AA6A6D78EFAEFFFFFFFF8C9D"
            "9A60C44D735AB76C1AA1E00B58668D42C916E5BB230AC0EBFBE957CF94881173DD88FFFFFFFF25E0927E8A44CDCD4E82B14C"
            "E7A3C844A750FEA545F8D30ECF8C61F063A7E43658C0F507FFFFFFFF198EF8CBB7B30F32BAC492A88ABF1D569F84B683EC40"
            "3A68CA932C436C275BB904F514BAFFFFFFFFA7C7DBE1FAE9A2A317E1370C00553D9E5A44BA6C3770E055065E50ACE6D13860"
            "05CBFD33FFFFFFFF7C9E12E5B4CA3E60C7F25F363AD39F40D2595875DB378A97CA846E359E85503AF4FF8DA8FFFFFFFF6FCE"
            "493DAE4E39F011D0880FCA124BD5B0939C31CF434AF9736E646A227E05BE55D4AC11FFFFFFFFDFFAB8054C39EB056A87DF19"
            "C4D5CAEE8F7E2914C93E097EA5BE753BE5FBEBF27CBF0FF10000002393F12B4662FD40164B135DF9317BFDD177ACC439F10A"
            "0C5E4DE0365D029FF9"
        ),
        (
            "71444E9093E66A14AF70396E5446CE0E987F5477759627A0F45F36A9D811C6BCB1C07243E3ED2294657FDF9270775FCFE7D3"
            "DC6B529D99AA12969556FED5226A35CB54C8EBFF2FEF7721C81AB732E65FFDBA4E"
        ),
    ),
]


@pytest.mark.parametrize(("name", "parameters"), [(name, parameters) for name, parameters, _, _ in KNOWN])
def test_known_answers(name: str, parameters: Parameters) -> None:
    _, _, ciphertext, plaintext = next(known for known in KNOWN if known[0] == name)
    assert _decrypt(bytes.fromhex(ciphertext), parameters) == bytes.fromhex(plaintext)


def test_all_published_answers() -> None:
    if not VECTORS.is_dir():
        pytest.skip("the published FLOE vectors are not beside the repository")
    cases = sorted(VECTORS.glob("*_ct.txt"))
    assert len(cases) == 17
    for case in cases:
        plaintext = bytes.fromhex(case.with_name(case.name.replace("_ct", "_pt")).read_text())
        assert _decrypt(bytes.fromhex(case.read_text()), _parameters(case.name)) == plaintext, case.name


@settings(max_examples=40)
@given(plaintext=st.binary(max_size=200), order=st.randoms(use_true_random=False))
def test_segments_decrypt_in_any_order(plaintext: bytes, order: Random) -> None:
    ciphertext = _encrypt(plaintext, SMALL)
    segments = _segments(ciphertext, SMALL)
    decryption = Decryption.start(KEY, DATA, ciphertext[:HEADER_BYTES], SMALL, what="it")
    positions = list(range(len(segments)))
    order.shuffle(positions)
    parts = {position: _open(decryption, segments, position) for position in positions}
    assert b"".join(parts[position] for position in range(len(segments))) == plaintext


@given(plaintext=st.binary(min_size=1, max_size=40), bit=st.integers(0))
def test_one_flipped_bit_is_found(plaintext: bytes, bit: int) -> None:
    ciphertext = bytearray(_encrypt(plaintext, SMALL))
    bit %= len(ciphertext) * 8
    ciphertext[bit // 8] ^= 1 << bit % 8
    with pytest.raises((FormatError, TamperError), match="it "):
        _decrypt(bytes(ciphertext), SMALL)


@pytest.mark.parametrize(("key", "data"), [(b"\x01" + bytes(31), DATA), (KEY, b"This is AAE")])
def test_the_header_commits_to_key_and_associated_data(key: bytes, data: bytes) -> None:
    header = _encrypt(b"x", SMALL)[:HEADER_BYTES]
    with pytest.raises(TamperError, match="it has a payload of another header or another file key"):
        Decryption.start(key, data, header, SMALL, what="it")


def test_other_parameters_are_refused() -> None:
    header = _encrypt(b"x", SMALL)[:HEADER_BYTES]
    for broken in (header[:-1], header + b"\0", b"\x01" + header[1:], b""):
        with pytest.raises(FormatError):
            Decryption.start(KEY, DATA, broken, SMALL, what="it")
    with pytest.raises(FormatError):
        Decryption.start(KEY, DATA, header, Parameters(64), what="it")


def test_a_segment_at_another_place_is_refused() -> None:
    ciphertext = _encrypt(bytes(24), SMALL)
    segments = _segments(ciphertext, SMALL)
    decryption = Decryption.start(KEY, DATA, ciphertext[:HEADER_BYTES], SMALL, what="it")
    with pytest.raises(TamperError, match="segment 1 of it does not authenticate"):
        decryption.decrypt_into(memoryview(segments[0]), memoryview(bytearray(8)), position=1, last=False)


def test_an_inner_segment_cannot_pose_as_the_last() -> None:
    ciphertext = _encrypt(bytes(24), SMALL)
    first = bytearray(_segments(ciphertext, SMALL)[0])
    decryption = Decryption.start(KEY, DATA, ciphertext[:HEADER_BYTES], SMALL, what="it")
    with pytest.raises(FormatError, match="lies about"):
        decryption.decrypt_into(memoryview(first), memoryview(bytearray(8)), position=0, last=True)
    first[:4] = (40).to_bytes(4)
    with pytest.raises(TamperError):
        decryption.decrypt_into(memoryview(first), memoryview(bytearray(8)), position=0, last=True)


@pytest.mark.parametrize("length", [0, OVERHEAD_BYTES - 1, 41])
def test_a_segment_of_impossible_length_is_refused(length: int) -> None:
    decryption = Decryption.start(KEY, DATA, _encrypt(b"x", SMALL)[:HEADER_BYTES], SMALL, what="it")
    with pytest.raises(FormatError, match=f"has {length} bytes"):
        decryption.decrypt_into(memoryview(bytes(length)), memoryview(bytearray(8)), position=0, last=True)


def test_nothing_follows_the_last_segment() -> None:
    encryption = Encryption(KEY, DATA, SMALL)
    segment = memoryview(bytearray(40))
    encryption.encrypt_into(b"end", segment, last=True)
    with pytest.raises(ValueError, match="last segment"):
        encryption.encrypt_into(b"more", segment, last=True)


@pytest.mark.parametrize(("size", "last"), [(7, False), (9, False), (9, True)])
def test_a_writer_fills_its_segments(size: int, last: bool) -> None:
    with pytest.raises(ValueError, match="do not fill"):
        Encryption(KEY, DATA, SMALL).encrypt_into(bytes(size), memoryview(bytearray(64)), last=last)


@pytest.mark.parametrize("segment_bytes", [0, OVERHEAD_BYTES, 2**32 - 1])
def test_parameters_that_cannot_be_encoded_are_refused(segment_bytes: int) -> None:
    with pytest.raises(ValueError, match="cannot be encoded"):
        Parameters(segment_bytes)


def test_keys_have_32_bytes() -> None:
    with pytest.raises(ValueError, match="got 16"):
        Encryption(bytes(16), DATA, SMALL)


def _parameters(name: str) -> Parameters:
    if "_4K" in name:
        return Parameters(4096)
    return Parameters(64) if "_64" in name else SMALL


def _segments(ciphertext: bytes, parameters: Parameters) -> list[bytes]:
    body, size = ciphertext[HEADER_BYTES:], parameters.segment_bytes
    return [body[begin : begin + size] for begin in range(0, len(body), size)]


def _open(decryption: Decryption, segments: list[bytes], position: int) -> bytes:
    plaintext = bytearray(max(0, len(segments[position]) - OVERHEAD_BYTES))
    last = position == len(segments) - 1
    decryption.decrypt_into(memoryview(segments[position]), memoryview(plaintext), position=position, last=last)
    return bytes(plaintext)


def _decrypt(ciphertext: bytes, parameters: Parameters) -> bytes:
    segments = _segments(ciphertext, parameters)
    decryption = Decryption.start(KEY, DATA, ciphertext[:HEADER_BYTES], parameters, what="it")
    return b"".join(_open(decryption, segments, position) for position in range(len(segments)))


def _encrypt(plaintext: bytes, parameters: Parameters) -> bytes:
    encryption = Encryption(KEY, DATA, parameters)
    size = parameters.capacity
    parts = [plaintext[begin : begin + size] for begin in range(0, len(plaintext), size)] or [b""]
    ciphertext = encryption.header
    for index, part in enumerate(parts):
        segment = memoryview(bytearray(parameters.segment_bytes))
        ciphertext += segment[: encryption.encrypt_into(part, segment, last=index == len(parts) - 1)]
    return ciphertext
