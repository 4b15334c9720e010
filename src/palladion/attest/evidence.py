"""Evidence as a machine sends it: what its hardware signed, and what is needed to check that."""

from dataclasses import dataclass
from typing import Literal, get_args

from palladion.errors import FormatError

Kind = Literal["sev-snp", "tdx", "nitro", "nvidia", "tpm"]
KINDS: tuple[Kind, ...] = get_args(Kind)

DOCUMENT_BYTES_MAX = 64 * 1024  # the largest is a TDX quote with its certificates, some 8 KiB
CERTIFICATES_MAX = 8
CERTIFICATE_BYTES_MAX = 8 * 1024
# What a refusal is named after (AttestationError.reason).
Reason = Literal[
    "malformed",  # broken, cut off, too long, or of a form that is not read here
    "chain",  # a certificate does not vouch for the next one
    "root",  # the chain ends in a root that is not trusted
    "early",  # a certificate or collateral is not valid yet at that time
    "expired",  # … or no longer
    "revoked",  # by a list of its authority
    "signature",  # what was signed is not what is here
    "mismatch",  # parts of one piece of evidence contradict each other
    "collateral",  # what is needed to judge is missing, or of something else
    "binding",  # it was made for another nonce, key or request
    "missing",  # evidence of a kind that is required
    "unwanted",  # evidence of a kind that nothing is required of
    "debug",  # whoever runs the machine can look into it
    "measurement",  # something else was started
    "tcb",  # firmware older than required
    "status",  # the vendor's judgement of the firmware is not an accepted one
    "feature",  # it may do what is forbidden, or lacks what is needed
    "chip",  # another piece of hardware
]

COLLATERAL_BYTES_MAX = 512 * 1024  # Intel's, with its lists of revoked certificates


@dataclass(frozen=True)
class Evidence:
    """What was signed (`document`), certificates in DER, leaf first, and further data that the kind defines.

    Nothing in it is trusted. Raises FormatError for more than the limits.
    """

    kind: Kind
    document: bytes
    certificates: tuple[bytes, ...] = ()
    collateral: bytes = b""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise FormatError(f"evidence of kind {self.kind!r} was got, one of {', '.join(KINDS)} was expected")
        for what, size, most in (
            ("the document", len(self.document), DOCUMENT_BYTES_MAX),
            ("the chain", len(self.certificates), CERTIFICATES_MAX),
            ("the largest certificate", max(map(len, self.certificates), default=0), CERTIFICATE_BYTES_MAX),
            ("the collateral", len(self.collateral), COLLATERAL_BYTES_MAX),
        ):
            if size > most:
                raise FormatError(f"{what} of evidence measures {size}, at most {most} is read")
