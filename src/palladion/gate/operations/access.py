"""The file of access policies that a policy names: opened, and known by its digest, both from one reading of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from palladion import files
from palladion.access.cedar import POLICIES_BYTES_MAX, Cedar, read_policies
from palladion.errors import PalladionError, PolicyError
from palladion.policy import Policy


@dataclass(frozen=True)
class Access:
    """Access policies, None where scopes alone say who may do what; and what names their file's content, by setting."""

    cedar: Cedar | None = None
    digests: Mapping[str, str] = field(default_factory=dict)


def open_access(policy: Policy, home: Path) -> Access:
    """The access policies of a policy, checked, for its routes; `home` is what the name is relative to.

    Raises PolicyError, which names the file, and the line where one is at fault.
    """
    if not policy.access.policies:
        return Access()
    path = home / Path(policy.access.policies).expanduser()
    try:
        data = _read(path)
    except PalladionError as error:  # missing, too large, or no file
        raise PolicyError(f"access.policies: {error.message}", *error.hints) from None
    return Access(read_policies(data, str(path), routes=policy.route), {_name(policy): sha256(data).hexdigest()})


def read_digests(policy: Policy, home: Path) -> dict[str, str]:
    """What names the content of that file, by setting, right or wrong; empty where it is gone."""
    if not policy.access.policies:
        return {}
    try:
        return {_name(policy): sha256(_read(home / Path(policy.access.policies).expanduser())).hexdigest()}
    except PalladionError:  # who opens it says why
        return {_name(policy): ""}


def _read(path: Path) -> bytes:
    return files.read_limited(path, size_max=POLICIES_BYTES_MAX, what="the access policies")


def _name(policy: Policy) -> str:
    return f"access.policies ({policy.access.policies})"
