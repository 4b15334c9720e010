"""The one error tree: every refusal Palladion makes on purpose is a `PalladionError`.

A caller's mistake in Python code is a `ValueError` or `TypeError` instead. The command line prints the message and
the hints, and exits with the code.
"""

from typing import ClassVar, Literal

FINE = 0
FINDING = 1
USAGE = 2
INCONCLUSIVE = 3


class PalladionError(Exception):
    """Base of the tree: a lower-case message (what was got, what was expected, never a secret) and hints on what to do.

    `exit_code` is what the command line returns: 1 when a check found something wrong, 2 when the request could not
    be carried out, 3 when a check ran and could not decide.
    """

    exit_code: ClassVar[int] = USAGE

    def __init__(self, message: str, *hints: str) -> None:
        super().__init__(message)
        self.message = message
        self.hints = hints


class PolicyError(PalladionError):
    """`palladion.toml` cannot be read or holds a value that is not allowed; names file, line and key."""


class InstallationError(PalladionError):
    """The installation (`.palladion/`) is missing, incomplete or already there."""


class KeysError(PalladionError):
    """A key is missing, cannot be unlocked, or a passphrase or identity does not fit."""


class NotFoundError(PalladionError):
    """A model, version, recipient, client or record of that name does not exist."""


class ConflictError(PalladionError):
    """What was asked contradicts what is recorded: a taken name, an immutable version, a wrong parent."""


class BusyError(PalladionError):
    """Another process holds what this one needs; only one process may write a ledger."""


class StorageError(PalladionError):
    """The disk refused: full, read-only, missing permission. Nothing that was acknowledged is lost."""


class MissingExtraError(PalladionError):
    """An optional dependency is not installed; the hint is the exact install line."""


class FormatError(PalladionError):
    """A file is broken, truncated, lies about itself, or exceeds a limit."""

    exit_code = FINDING


class UnsupportedFormatError(FormatError):
    """A file is of a format that cannot be read here, or of one that can hold code; `found` names it."""

    def __init__(self, message: str, *hints: str, found: str = "unknown") -> None:
        super().__init__(message, *hints)
        self.found = found


class TamperError(PalladionError):
    """A signature, tag, digest or proof does not hold: what is here is not what was made."""

    exit_code = FINDING


Refusal = Literal[
    "missing", "publisher", "model", "machine", "clock", "early", "expired", "replayed", "unasked", "revoked"
]


class LicenseError(PalladionError):
    """A licence is missing, or does not let this machine open this file now; `refusal` says which check refused."""

    def __init__(self, message: str, *hints: str, refusal: Refusal) -> None:
        super().__init__(message, *hints)
        self.refusal: Refusal = refusal


class AttestationError(PalladionError):
    """Evidence of a machine does not hold, or does not satisfy what is required; `reason` names the check."""

    exit_code = FINDING

    def __init__(self, message: str, *hints: str, reason: str) -> None:
        super().__init__(message, *hints)
        self.reason = reason


class ApprovalError(PalladionError):
    """What was asked needs approvals that are not there or do not hold; `reason` names the check."""

    def __init__(self, message: str, *hints: str, reason: str) -> None:
        super().__init__(message, *hints)
        self.reason = reason


class ScanRefusedError(PalladionError):
    """The scanner refuses the file; the message lists the findings."""

    exit_code = FINDING


class InconclusiveError(PalladionError):
    """A check ran and could not decide, because something it needs is not there."""

    exit_code = INCONCLUSIVE
