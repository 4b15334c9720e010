"""The policy of a running gate, and how another one takes its place: read, compared, recorded, swapped. Or refused.

Requests see the old policy or the new one, never a part of each, and none is lost. What cannot change while the gate
runs is refused by name, and then nothing changes.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec

from palladion.errors import PolicyError
from palladion.gate.operations.access import Access, open_access
from palladion.ledger.messages import PolicyReloaded
from palladion.ledger.record import Record
from palladion.lifecycle.installation import Installation
from palladion.policy import Policy, RoutePolicy, load_policy
from palladion.policy.compare import Change, compare, digest, told

RECORDED_MAX = 100  # changes that a record tells one by one; all of them fit into 64 KiB
TOLD_MAX = 10_000  # to a command
VALUE_CHARACTERS_MAX = 200  # of each value in a record; the digest binds all of it

# Sections and settings that a gate takes over while it runs. Everything else needs a restart: sockets are open, keys
# are unlocked, and keys are read once.
LIVE = frozenset(
    {
        "access",
        "contract",
        "encrypted",
        "feed",
        "gate.body_bytes_max",
        "gate.body_seconds_max",
        "gate.deadline_ms",
        "gate.requests_max",
        "intel",
        "keys.escrow",
        "keys.owner",
        "limits",
        "operations.drain_seconds",
        "operations.log_every",
        "operations.trace_every",
        "passphrase",
        "protect",
        "route",
        "scan",
        "trust",
        "watch",
    }
)
# Of a route to a language model: files that are read once, and what is known of clients is kept by them.
OF_LANGUAGE = frozenset({"calibration", "encoder", "tokenizer"})

FILES = "files"  # beside the sections, as a command is told the policy in force: see `access.read_digests`

Apply = Callable[[Policy, Record, Access], Awaitable[None]]


class Policies:
    """The policy in force. For one event loop."""

    def __init__(
        self,
        installation: Installation,
        *,
        check: Callable[[Policy], None],
        apply: Apply,
        marking: bool,
        opened: Mapping[str, str],
    ) -> None:
        """`check` raises PolicyError for what could not be served; `apply` records, swaps, or raises and swaps nothing.

        `marking` is whether marks of answers can be kept, which is decided at the start; `opened` are the digests of
        the files that are in force.
        """
        self._installation = installation
        self._check = check
        self._apply = apply
        self._marking = marking
        self._changing = asyncio.Lock()
        self.digest = digest(installation.policy)
        self._files = opened

    async def reload(self, actor: str) -> list[Change]:
        """Take over what the files say now; what changed. Raises PolicyError, and then nothing changes."""
        async with self._changing:
            before, home = self._installation.policy, self._installation.paths.home
            after = await asyncio.to_thread(load_policy, self._installation.paths.policy)
            changes = compare(before, after)
            require_live(changes, before, after, marking=self._marking)
            # names in it are those of routes: with others, the same text may be wrong
            access = await asyncio.to_thread(open_access, after, home)
            changes += compare_files(self._files, access.digests)
            if not changes:
                return []
            self._check(after)
            record = Record(
                "policy.changed",
                self._installation.clock.now(),
                actor,
                home.name,
                {
                    "before": self.digest,
                    "after": digest(after),
                    "changes": [recorded(change) for change in changes[:RECORDED_MAX]],
                    "more": max(0, len(changes) - RECORDED_MAX),
                },
            )
            await self._apply(after, record, access)
            self.digest, self._files = digest(after), access.digests
            return changes

    def settings(self) -> dict[str, Any]:
        """All settings of the policy in force, and under `FILES` the digests of the files that go with it."""
        found: dict[str, Any] = _numbers(msgspec.to_builtins(self._installation.policy))
        return {**found, FILES: dict(self._files)}

    async def take_over(self, actor: str) -> PolicyReloaded:
        """`reload`, as the admin socket tells of it."""
        changes = await self.reload(actor)
        return PolicyReloaded(self.digest, [{**recorded(change), "live": True} for change in changes[:TOLD_MAX]])


def compare_files(before: Mapping[str, str], after: Mapping[str, str]) -> list[Change]:
    """The files that both name, and whose content differs; another file is another setting."""
    return [Change(name, before[name], after[name]) for name in before if after.get(name, before[name]) != before[name]]


def require_live(changes: Sequence[Change], before: Policy, after: Policy, *, marking: bool) -> None:
    """Raise PolicyError unless all of these can change while the gate runs; names those that cannot."""
    refused = restart_needed(changes, before, after, marking=marking)
    if refused:
        raise PolicyError(
            f"these cannot change while the gate runs: {', '.join(refused)}",
            "restart it to take them over: nothing was changed",
        )


def restart_needed(changes: Sequence[Change], before: Policy, after: Policy, *, marking: bool) -> list[str]:
    """The names of those that cannot change while the gate runs; `marking` as for `Policies`."""
    was, will = ({f"route[{route.route}]": route for route in policy.route} for policy in (before, after))
    refused = [change.name for change in changes if not _is_live(change, was, will)]
    if not marking:
        refused += [f"route[{route.route}].flipped" for route in after.route if route.flipped > 0]
    return list(dict.fromkeys(refused))


def recorded(change: Change) -> dict[str, Any]:
    """A change as the ledger tells it: values as text, cut where they are long."""
    return {"setting": change.name, "before": _text(change.before), "after": _text(change.after)}


def _numbers(value: Any) -> Any:
    """Without settings that are no finite number, which JSON cannot say: they are defaults."""
    if isinstance(value, dict):
        return {key: _numbers(item) for key, item in value.items() if not _is_endless(item)}
    return [_numbers(item) for item in value] if isinstance(value, list | tuple) else value


def _is_endless(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _is_live(change: Change, was: Mapping[str, RoutePolicy], will: Mapping[str, RoutePolicy]) -> bool:
    setting = change.setting
    if setting not in LIVE and setting.partition(".")[0] not in LIVE:
        return False
    if not setting.startswith("route"):
        return True
    table, _, key = change.name.rpartition("].")
    if not table:
        comes_or_goes = will.get(change.name) or was[change.name]
        return not comes_or_goes.calibration
    if key == "upstream":
        # a model that ran here would have to be asked elsewhere, or the other way round
        return bool(change.before) and bool(change.after)
    return key != "protocol" and key not in OF_LANGUAGE


def _text(value: Any) -> str | None:
    if value is None:
        return None
    text = told(value)
    return text if len(text) <= VALUE_CHARACTERS_MAX else f"{text[:VALUE_CHARACTERS_MAX]}…"
