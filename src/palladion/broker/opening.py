"""From an installation to its broker: policy, evidence required, roots, and the identities that open files."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from palladion.attest.requirements import load
from palladion.broker.broker import Broker
from palladion.broker.permission import Permission
from palladion.errors import PolicyError
from palladion.host.broker_messages import KeyName
from palladion.keys import Identity, Recipient
from palladion.lifecycle.installation import Installation
from palladion.seal.recipients import parse_identity

AskPin = Callable[[str], str]


def open_broker(
    installation: Installation,
    *,
    ask_pin: AskPin | None = None,
    monotonic: Callable[[], float] = time.monotonic,
) -> Broker:
    """The broker that the policy describes. Raises PolicyError for one that could release nothing, or to anybody."""
    policy, paths = installation.policy.broker, installation.paths
    if not policy.identities:
        raise PolicyError(f"{paths.policy}: broker.identities is empty: it could open nothing")
    if not policy.policies:
        raise PolicyError(f"{paths.policy}: broker.policies is empty: nothing would be permitted")
    if not policy.release:
        raise PolicyError(f"{paths.policy} has no [[broker.release]]: no model's key would be released")
    wanted = {name for one in policy.release for name in one.attestation}
    requirements, roots = load([one for one in installation.policy.attestation if one.name in wanted], paths.home)
    identities = [_identity(text, paths.home, ask_pin) for text in policy.identities]
    return Broker(
        installation,
        installation.open_gate_root(),
        identities,
        keys=key_names(identities),
        permission=Permission(paths.home / Path(policy.policies).expanduser()),
        requirements=requirements,
        roots=roots,
        monotonic=monotonic,
    )


def key_names(identities: Sequence[Identity]) -> tuple[KeyName, ...]:
    """Kind and id of each."""
    recipients = [_recipient(one) for one in identities]
    return tuple(dict.fromkeys(KeyName(one.kind, one.key_id) for one in recipients))


def _recipient(identity: Any) -> Recipient:
    # a key elsewhere, in an HSM or a cloud, is its own recipient
    return cast(Recipient, getattr(identity, "recipient", identity))


def _identity(text: str, home: Path, ask_pin: AskPin | None) -> Identity:
    if ":" not in text.partition("/")[0]:
        text = str(home / Path(text).expanduser())
    return parse_identity(text, ask_pin=ask_pin)
