"""What the certificate of a chip's key (VCEK) or a cloud's leased key (VLEK) says of the firmware and the chip.

Source: AMD 57230, VCEK Certificate and KDS Interface Specification, §3.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from palladion.attest import der
from palladion.attest.certificate import Certificate
from palladion.attest.chains import refuse
from palladion.attest.snp.report import Key, Product
from palladion.errors import FormatError

CHIP_ID_BYTES = 64
_WHAT = "a certificate of an SNP key"
_BASE = "1.3.6.1.4.1.3704.1."
_PRODUCT, _HARDWARE, _CLOUD = f"{_BASE}2", f"{_BASE}4", f"{_BASE}5"
_NUMBERS = {
    f"{_BASE}3.1": "boot_loader",
    f"{_BASE}3.2": "tee",
    f"{_BASE}3.3": "snp",
    f"{_BASE}3.8": "microcode",
    f"{_BASE}3.9": "fmc",
}
_UNUSED = tuple(f"{_BASE}3.{number}" for number in (4, 5, 6, 7))
_IA5_STRING = 0x16
_NAMES: Mapping[str, tuple[Key, str]] = {"SEV-VCEK": ("vcek", "SEV-"), "SEV-VLEK": ("vlek", "SEV-VLEK-")}
_PRODUCTS: Mapping[str, Product] = {"Milan": "Milan", "Genoa": "Genoa", "Siena": "Genoa", "Turin": "Turin"}


@dataclass(frozen=True)
class Endorsement:
    """The key's kind, the product, the firmware it was derived for, and whose it is: a chip's, or a cloud's."""

    key: Key
    product: Product
    tcb: Mapping[str, int]
    chip_id: bytes  # 64 bytes, of Turin 8; empty of a leased key
    cloud: str


def read_endorsement(path: tuple[Certificate, ...]) -> Endorsement:
    """What the verified chain, leaf first, says. Raises AttestationError `malformed` or `mismatch`."""
    leaf, *above = path
    named = _NAMES.get(leaf.name)
    if named is None:
        refuse("mismatch", f"certificate {leaf.name!r} is of no SNP key: SEV-VCEK or SEV-VLEK was expected")
    key, issuer = named
    try:
        text = _text(leaf.extensions[_PRODUCT])
        product = _PRODUCTS.get(text.partition("-")[0])
        tcb = {name: _number(leaf.extensions[oid]) for oid, name in _NUMBERS.items() if oid in leaf.extensions}
        unused = [_number(leaf.extensions[oid]) for oid in _UNUSED if oid in leaf.extensions]
        chip_id = _chip(leaf.extensions[_HARDWARE], product) if key == "vcek" else b""
        cloud = _text(leaf.extensions[_CLOUD]) if key == "vlek" else ""
    except KeyError as missing:
        refuse("malformed", f"{_WHAT} without its extension {missing.args[0]}")
    except FormatError as error:
        refuse("malformed", error.message)
    if product is None:
        refuse("malformed", f"{_WHAT} of a product that is not known, {text!r}")
    # A leaf's own word is not enough: the authority that AMD has for each product vouches for that product alone.
    if [one.name for one in above] != [f"{issuer}{product}", f"ARK-{product}"]:
        refuse("mismatch", f"{_WHAT} of {product} is vouched for by {', '.join(repr(one.name) for one in above)}")
    if any(unused):
        refuse("malformed", f"{_WHAT} with firmware that is not known")
    return Endorsement(key, product, tcb, chip_id, cloud)


def _number(data: bytes) -> int:
    return der.small(der.read(data, what=_WHAT), what=_WHAT, most=255)


def _text(data: bytes) -> str:
    content = der.expect(der.read(data, what=_WHAT), _IA5_STRING, what=_WHAT)
    if not 0 < len(content) <= 64 or not all(0x20 <= byte < 0x7F for byte in content):
        der.refuse(_WHAT, "text that is broken")
    return content.decode("ascii")


def _chip(data: bytes, product: Product | None) -> bytes:
    """The chip's identifier: bare bytes in most certificates, an OCTET STRING in some."""
    size = 8 if product == "Turin" else CHIP_ID_BYTES
    if len(data) != size:
        data = der.expect(der.read(data, what=_WHAT), der.OCTET_STRING, what=_WHAT)
    if len(data) != size:
        der.refuse(_WHAT, f"a chip's identifier of {len(data)} bytes, {size} were expected")
    return data
