"""The certificate of a platform's key (PCK): which platform, and the firmware that the certificate was made for.

Source: Intel SGX PCK Certificate and CRL Profile Specification, §1.3.5 (the SGX extensions).
"""

from dataclasses import dataclass

from palladion.attest import der
from palladion.attest.certificate import Certificate
from palladion.attest.chains import refuse
from palladion.errors import FormatError

_WHAT = "a PCK certificate"
_BASE = "1.2.840.113741.1.13.1"
_PPID, _TCB, _PCE_ID, _FMSPC, _PLATFORM, _SETTINGS = (f"{_BASE}.{number}" for number in (1, 2, 3, 4, 6, 7))
COMPONENTS = 16
_PCE_SVN, _CPU_SVN = f"{_TCB}.17", f"{_TCB}.18"
_FLAGS = {f"{_SETTINGS}.1": "dynamic_platform", f"{_SETTINGS}.2": "cached_keys", f"{_SETTINGS}.3": "smt_enabled"}
_LEAF = "Intel SGX PCK Certificate"
_AUTHORITIES = ("Intel SGX PCK Platform CA", "Intel SGX PCK Processor CA")
_ROOT = "Intel SGX Root CA"


@dataclass(frozen=True)
class Platform:
    """A platform as its certificate names it; `components` are the 16 security versions of its firmware."""

    ppid: bytes
    fmspc: bytes
    pce_id: bytes
    pce_svn: int
    components: tuple[int, ...]
    settings: dict[str, bool]


def read_platform(path: tuple[Certificate, ...]) -> Platform:
    """What a verified chain, leaf first, says. Raises AttestationError `malformed` or `mismatch`."""
    names = [one.name for one in path]
    if len(names) != 3 or names[0] != _LEAF or names[1] not in _AUTHORITIES or names[2] != _ROOT:
        refuse("mismatch", f"a quote whose chain is of {', '.join(map(repr, names))}, Intel's for PCKs was expected")
    extension = path[0].extensions.get(_BASE)
    if extension is None:
        refuse("malformed", f"{_WHAT} without Intel's extension")
    try:
        fields = _fields(der.read(extension, what=_WHAT))
        tcb = _fields(fields[_TCB])
        settings = _fields(fields[_SETTINGS]) if _SETTINGS in fields else {}
        return Platform(
            ppid=_bytes(fields[_PPID], 16),
            fmspc=_bytes(fields[_FMSPC], 6),
            pce_id=_bytes(fields[_PCE_ID], 2),
            pce_svn=der.small(tcb[_PCE_SVN], what=_WHAT, most=0xFFFF),
            components=tuple(
                der.small(tcb[f"{_TCB}.{number}"], what=_WHAT, most=255) for number in range(1, COMPONENTS + 1)
            ),
            settings={name: der.boolean(settings[oid], what=_WHAT) for oid, name in _FLAGS.items() if oid in settings},
        )
    except KeyError as missing:
        refuse("malformed", f"{_WHAT} without the field {missing.args[0]}")
    except FormatError as error:
        refuse("malformed", error.message)


def _fields(node: der.Node) -> dict[str, der.Node]:
    """A sequence of pairs of identifier and value, by identifier."""
    found: dict[str, der.Node] = {}
    for pair in der.children(node, der.SEQUENCE, what=_WHAT):
        parts = der.children(pair, der.SEQUENCE, what=_WHAT)
        if len(parts) != 2:
            der.refuse(_WHAT, "a field that is no pair")
        identifier = der.oid(parts[0], what=_WHAT)
        if identifier in found:
            der.refuse(_WHAT, f"the field {identifier} twice")
        found[identifier] = parts[1]
    return found


def _bytes(node: der.Node, size: int) -> bytes:
    content = der.expect(node, der.OCTET_STRING, what=_WHAT)
    if len(content) != size:
        der.refuse(_WHAT, f"a field of {len(content)} bytes, {size} were expected")
    return content
