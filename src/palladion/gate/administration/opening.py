"""Opens what operators reach, where the policy lets anybody sign in; otherwise nothing of it is loaded."""

import grp
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from palladion.errors import PolicyError
from palladion.gate.issuers import OPERATORS, Issuers
from palladion.gate.keeper import Keeper
from palladion.gate.operations.policies import Policies
from palladion.gate.recorder import Recorder
from palladion.keys import Root
from palladion.lifecycle.installation import Installation
from palladion.policy import OperatorsPolicy

if TYPE_CHECKING:
    from palladion.gate.administration.administration import Administration


def check_administration(policy: OperatorsPolicy, home: Path) -> None:
    """Raise PolicyError, or StorageError, for what operators could not reach, as far as this machine alone can tell."""
    if policy.issuer:
        Issuers([policy.as_issuer], home, section=OPERATORS)
    if policy.socket and not (folder := (home / Path(policy.socket).expanduser()).parent).is_dir():
        raise PolicyError(f"operators.socket: there is no folder {folder}", f"mkdir {folder}")
    if policy.socket_group:
        try:
            grp.getgrnam(policy.socket_group)
        except KeyError:
            raise PolicyError(f"operators.socket_group: there is no group {policy.socket_group!r}") from None


def open_administration(
    installation: Installation,
    root: Root,
    keeper: Keeper,
    recorder: Recorder,
    policies: Policies,
    *,
    reload: Callable[[], Awaitable[None]],
    status: Callable[[], Awaitable[dict[str, Any]]],
) -> "Administration | None":
    """What operators reach, closed yet; None where nobody could. `reload` takes over clients. Raises PolicyError."""
    if not installation.policy.operators.wanted:
        return None
    check_administration(installation.policy.operators, installation.paths.home)
    from palladion.gate.administration.administration import Administration

    return Administration(
        installation, root, keeper, recorder, reload=reload, take_over=policies.take_over, status=status
    )
