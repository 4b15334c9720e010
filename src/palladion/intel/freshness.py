"""Whether feeds are as fresh as the policy wants them: what `palladion doctor` says of them. Changes nothing."""

from collections.abc import Iterator
from datetime import timedelta

from palladion.clock import timestamp
from palladion.errors import PalladionError
from palladion.intel.store import FOLDER, LOADED_MAX, FeedStore, Version
from palladion.lifecycle.doctor import Check
from palladion.lifecycle.installation import Installation
from palladion.policy.intelligence import FeedPolicy

NAME = "feeds"
LATE = 2  # times its hours: one refresh that failed is no reason to worry


def look(installation: Installation) -> Iterator[Check]:
    """A warning for each feed that is stale, over, or was never fetched; a problem where its state is damaged."""
    policy, store = installation.policy, FeedStore(installation.paths.directory / FOLDER)
    if not policy.feed:
        return
    faults: list[Check] = []
    items = 0
    for feed in policy.feed:
        try:
            version = store.current(feed.name)
        except PalladionError as error:
            faults.append(Check(NAME, "problem", error.message, "palladion intel refresh --force"))
            continue
        items += 0 if version is None else version.items
        fault = _fault(installation, feed, version)
        if fault:
            hint = (
                "see why in the gate's log, or by: palladion intel refresh"
                if policy.intel.refresh
                else "palladion intel refresh, by a timer (docs/operations.md), or refresh = true under [intel]"
            )
            faults.append(Check(NAME, "warning", f"feed {feed.name} {fault}", hint))
    if items > LOADED_MAX:
        message = f"feeds have {items} items together, and a gate loads {LOADED_MAX}: the last ones are left out"
        faults.append(Check(NAME, "warning", message, "leave out a feed, or put the ones that matter first"))
    yield from faults
    if not faults:
        yield Check(NAME, "ok", f"{len(policy.feed)} feeds, {items} items, all fetched in time")


def _fault(installation: Installation, feed: FeedPolicy, version: Version | None) -> str:
    """What is wrong with what is there of a feed; empty where nothing is."""
    now = installation.clock.now()
    if version is None:
        return "was never fetched, and says nothing"
    if (version.kind, version.format) != (feed.kind, feed.format):
        return f"was fetched as {version.kind} ({version.format}), and says nothing until it is fetched again"
    end = min(version.valid_until, version.fetched + timedelta(days=feed.expiry_days))
    if end <= now:
        return f"has expired ({timestamp(end)}), and says nothing"
    if now - version.fetched > timedelta(hours=LATE * feed.refresh_hours):
        return f"was fetched last at {timestamp(version.fetched)}, and is to be every {feed.refresh_hours} hours"
    return ""
