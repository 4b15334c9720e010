"""NVIDIA's reference values: the published ones hold, and whatever is changed in them does not."""

import random
from datetime import UTC, datetime
from hashlib import sha256

import pytest

from palladion.attest.nvidia.reference import read_reference, reference_roots
from palladion.errors import AttestationError
from tests.attest.nvidia.synthetic import nvidia_lab
from tests.attest.refusals import VECTORS, refused
from tests.attest.synthetic import NOW, with_bit_flipped

VECTOR_TIME = datetime(2025, 6, 1, tzinfo=UTC)


FOLDER = VECTORS / "nvidia"


RIMS = {f"{name}_rim": (FOLDER / f"{name}_rim.xml").read_text() for name in ("driver", "vbios")}


def test_the_root_of_reference_values_is_nvidias() -> None:
    """As nvtrust has it: guest_tools/gpu_verifiers/local_gpu_verifier/src/verifier/certs/verifier_RIM_root.pem."""
    (root,) = reference_roots()
    assert sha256(root).hexdigest() == "12977b5115acb0381179279fffeb5a8c4d264971ebb32298023a465fa41df5d1"


def _refuse_changed_values(count: int) -> None:
    data = RIMS["driver_rim"].encode()
    for bit in random.Random(7).sample(range(8 * len(data)), count):
        try:
            same = read_reference(with_bit_flipped(data, bit), at=VECTOR_TIME, roots=reference_roots(), what="it")
        except AttestationError:
            continue
        # a blank in the base64 of a signature, an upper-case digit in one: nothing that is read has changed
        assert same.values == read_reference(data, at=VECTOR_TIME, roots=reference_roots(), what="it").values


def test_a_flipped_bit_of_reference_values_is_refused_at_40_places() -> None:
    _refuse_changed_values(40)


@pytest.mark.slow
def test_a_flipped_bit_of_reference_values_is_refused_at_one_place_of_hundred() -> None:
    _refuse_changed_values(8 * len(RIMS["driver_rim"]) // 100)


@pytest.mark.parametrize(
    "change",
    [
        ('active="True"', 'active="False"'),
        ("80161aac", "80161aad"),
        ('index="7"', 'index="8"'),
        ('colloquialVersion="550.90.07"', 'colloquialVersion="550.90.08"'),
        ("<ns0:Payload", "<ns0:Payload x='1'"),
        ("</ns0:Payload>", "</ns0:Payload>\n"),
        ("</ns0:Payload>\n<ds:Signature", "</ns0:Payload><ns0:Payload/>\n<ds:Signature"),
    ],
)
def test_any_change_of_reference_values_breaks_their_signature(change: tuple[str, str]) -> None:
    assert change[0] in RIMS["driver_rim"]
    data = RIMS["driver_rim"].replace(*change).encode()
    with refused("signature", match="not what was signed"):
        read_reference(data, at=VECTOR_TIME, roots=reference_roots(), what="it")


@pytest.mark.parametrize(
    "change",
    [
        ('URI=""', 'URI="#x"'),
        ('URI=""', ""),
        ("xmldsig-more#sha384", "xmldsig-more#sha256"),
        ("xmldsig#enveloped-signature", "xmldsig#base64"),
        ("<ds:SignatureValue>", "<ds:SignatureValue/><ds:SignatureValue>"),
        ("<ds:Transforms>", '<ds:Transforms><ds:Transform Algorithm="x"/>'),
        ("<ds:KeyInfo><ds:X509Data>", "<ds:KeyInfo><ds:X509Data/><ds:X509Data>"),
        ("</ds:Signature>", "</ds:Signature><ds:Signature/>"),
        ("SoftwareIdentity", "SoftwareIdentities"),
        ("<ds:DigestValue>", "<ds:DigestValue>*"),
    ],
)
def test_signatures_of_another_shape_are_refused(change: tuple[str, str]) -> None:
    assert change[0] in RIMS["driver_rim"]
    with refused("malformed"):
        read_reference(RIMS["driver_rim"].replace(*change).encode(), at=VECTOR_TIME, roots=reference_roots(), what="it")


@pytest.mark.parametrize(
    "resource",
    [
        "",
        '<n:Other index="1" alternatives="1" active="True"/>',
        '<n:Resource index="64" alternatives="1" active="False"/>',
        '<n:Resource index="1" alternatives="0" active="False"/>',
        '<n:Resource index="1" alternatives="17" active="False"/>',
        '<n:Resource index="x" alternatives="1" active="False"/>',
        '<n:Resource index="1" active="True"/>',
        '<n:Resource index="1" alternatives="1" active="False"/>' * 2,
        '<n:Resource index="1" alternatives="1" active="True" size="48" Hash0="00"/>',
        f'<n:Resource index="1" alternatives="1" active="True" size="32" h:Hash0="{"00" * 48}"/>',
        f'<n:Resource index="1" alternatives="2" active="True" size="48" h:Hash0="{"00" * 48}"/>',
    ],
)
def test_reference_values_that_are_broken_are_refused(resource: str) -> None:
    lab = nvidia_lab()
    with refused("malformed"):
        read_reference(lab.rim("1", {}, resources=resource).encode(), at=NOW, roots=(lab.rim_root,), what="it")
