"""`palladion intel …`: feeds of others, what a campaign tells them, what detections are called, and rules."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from palladion import files
from palladion.cli.intel_export import export, push
from palladion.cli.intel_rules import rules
from palladion.cli.output import (
    actor,
    echo,
    find_installation,
    json_option,
    print_fields,
    print_json,
    print_table,
    warn,
)
from palladion.clock import timestamp
from palladion.errors import FINDING, NotFoundError

if TYPE_CHECKING:
    from palladion.intel.indicators import Hit
    from palladion.intel.refresh import Refreshed
    from palladion.intel.store import FeedStore, Version
    from palladion.lifecycle.installation import Installation
    from palladion.policy.intelligence import FeedPolicy
    from palladion.watch.taxonomy import Table


@click.group()
def intel() -> None:
    """Threat intelligence: feeds as hints with an end, and campaigns told to others."""


intel.add_command(export)
intel.add_command(push)
intel.add_command(rules)


@intel.command(epilog="Example: palladion intel refresh")
@click.argument("names", nargs=-1, metavar="[FEED]...")
@click.option("--force", is_flag=True, help="Fetch also what is not due yet.")
@json_option
@click.pass_context
def refresh(ctx: click.Context, names: Sequence[str], *, force: bool, as_json: bool) -> None:
    """Fetch the feeds of the policy that are due, all of them or those named; for a timer, too.

    A feed that is malformed or cannot be fetched keeps its last good version until that expires, and the command
    exits with 1.
    """
    from palladion.intel.refresh import reader, refreshed_record
    from palladion.intel.refresh import refresh as fetch

    installation = find_installation(ctx)
    feeds = [feed for feed in installation.policy.feed if not names or feed.name in names]
    for name in names:
        _feed(installation, name)
    store = _store(installation)
    outcomes = fetch(store, feeds, reader(installation.paths.home), now=installation.clock.now(), force=force)
    records = [
        refreshed_record(outcome, actor=actor(), now=installation.clock.now())
        for outcome in outcomes
        if outcome.changed or outcome.error is not None
    ]
    if records:
        with installation.open_ledger(installation.open_gate_root()) as ledger:
            ledger.append(records)
    if as_json:
        print_json({"feeds": [_outcome(each) for each in outcomes]})
    else:
        _say(outcomes, any_feed=bool(installation.policy.feed))
    for each in outcomes:
        if each.error is not None:
            warn(f"feed {each.feed.name}: {each.error.message}; {_kept(each.version, installation.clock.now())}")
    if any(each.error is not None for each in outcomes):
        ctx.exit(FINDING)


@intel.command("list", epilog="Example: palladion intel list")
@json_option
@click.pass_context
def list_feeds(ctx: click.Context, as_json: bool) -> None:
    """List the feeds of the policy: what each holds, and until when it counts."""
    installation = find_installation(ctx)
    store, now = _store(installation), installation.clock.now()
    documents = [_document(feed, store.current(feed.name), now) for feed in installation.policy.feed]
    if as_json:
        print_json({"feeds": documents})
    elif documents:
        columns = ("feed", "kind", "state", "items", "fetched", "valid_until", "weight")
        print_table(columns, [[document[column] for column in columns] for document in documents])
    else:
        echo("no feeds: docs/threat_intelligence.md says how to add one")


@intel.command(epilog="Example: palladion intel show tor-exits")
@click.argument("feed")
@json_option
@click.pass_context
def show(ctx: click.Context, feed: str, as_json: bool) -> None:
    """Show a feed: where it comes from, its version, and how much of it is of use."""
    installation = find_installation(ctx)
    policy = _feed(installation, feed)
    version = _store(installation).current(feed)
    document = _document(policy, version, installation.clock.now()) | {
        "from": policy.url or policy.file,
        "format": policy.format,
        "version": None if version is None else version.digest,
        "skipped": None if version is None else version.skipped,
        "refresh_hours": policy.refresh_hours,
        "expiry_days": policy.expiry_days,
    }
    if as_json:
        print_json(document)
    else:
        print_fields([(name.replace("_", " "), value) for name, value in document.items()])


@intel.command(epilog="Example: palladion intel check 192.0.2.7")
@click.argument("address")
@json_option
@click.pass_context
def check(ctx: click.Context, address: str, as_json: bool) -> None:
    """Look up an address, or the number of an autonomous system (AS64500), in all feeds.

    Says what each feed that has it would add to the log-odds of suspicion, in nats. That is a hint and no verdict.
    """
    from palladion.intel.indicators import look_up, prior

    installation = find_installation(ctx)
    store, now = _store(installation), installation.clock.now()
    feeds = [loaded for feed in installation.policy.feed if (loaded := store.load(feed)) is not None]
    if (number := _system(address)) is not None:
        hits = [hit for feed in feeds if (hit := feed.system(number, now)) is not None]
    else:
        hits = look_up(feeds, _address(address), now)
    together = prior(hits, now)
    if as_json:
        print_json({"address": address, "log_odds": f"{together:.4f}", "hits": [_hit(hit) for hit in hits]})
    elif hits:
        columns = ("feed", "indicator", "log_odds", "expires", "version")
        print_table(columns, [[str(_hit(hit)[column])[:20] for column in columns] for hit in hits])
        echo(f"together {together:.2f} nats, which is a hint and no verdict")
    else:
        echo(f"{address} is in none of {len(feeds)} feeds")


@intel.command(epilog="Example: palladion intel techniques --detection campaign")
@click.option("--detection", metavar="KIND", help="Only what this kind of detection is called.")
@click.option(
    "--from",
    "release",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Take names from a release of ATLAS that you downloaded: ATLAS.yaml or stix-atlas.json.",
)
@json_option
@click.pass_context
def techniques(ctx: click.Context, detection: str | None, release: Path | None, as_json: bool) -> None:
    """List what detections are called by MITRE ATLAS and OWASP, and from which release."""
    from palladion.watch import taxonomy

    installation = find_installation(ctx)
    folder = _folder(installation)
    if release is not None:
        data = files.read_limited(release, size_max=taxonomy.RELEASE_BYTES_MAX, what="the release of ATLAS")
        taxonomy.save_table(folder, taxonomy.read_release(data))
    table = taxonomy.load_table(folder)
    kinds = list(taxonomy.DETECTIONS) if detection is None else [detection]
    if as_json:
        print_json({"version": table.version, "source": table.source, "detections": _named(kinds, table)})
        return
    rows = [(kind, each.id, each.name) for kind in kinds for each in taxonomy.references(kind, table)]
    print_table(("detection", "id", "name"), rows, title=f"MITRE ATLAS {table.version} and OWASP")


def _named(kinds: Sequence[str], table: "Table") -> dict[str, list[dict[str, str]]]:
    from palladion.watch.taxonomy import references

    return {kind: [{"id": each.id, "name": each.name} for each in references(kind, table)] for kind in kinds}


def _folder(installation: "Installation") -> Path:
    from palladion.intel.store import FOLDER

    return installation.paths.directory / FOLDER


def _store(installation: "Installation") -> "FeedStore":
    from palladion.intel.store import FeedStore

    return FeedStore(_folder(installation))


def _feed(installation: "Installation", name: str) -> "FeedPolicy":
    found = next((feed for feed in installation.policy.feed if feed.name == name), None)
    if found is None:
        known = ", ".join(feed.name for feed in installation.policy.feed)
        raise NotFoundError(
            f"no feed {name!r}", f"the policy has {known}" if known else "the policy has none: [[feed]] adds one"
        )
    return found


def _document(feed: "FeedPolicy", version: "Version | None", now: datetime) -> dict[str, Any]:
    return {
        "feed": feed.name,
        "kind": feed.kind,
        "state": _state(feed, version, now),
        "items": None if version is None else version.items,
        "fetched": None if version is None else timestamp(version.fetched),
        "valid_until": None if version is None else timestamp(version.valid_until),
        "weight": feed.weight,
    }


def _state(feed: "FeedPolicy", version: "Version | None", now: datetime) -> str:
    from palladion.intel.refresh import due

    if version is None:
        return "never fetched"
    if version.valid_until <= now:
        return "expired"
    return "due" if due(feed, version, now) else "current"


def _outcome(outcome: "Refreshed") -> dict[str, Any]:
    version = outcome.version
    return {
        "feed": outcome.feed.name,
        "changed": outcome.changed,
        "version": None if version is None else version.digest,
        "items": None if version is None else version.items,
        "error": None if outcome.error is None else outcome.error.message,
    }


def _say(outcomes: "Sequence[Refreshed]", *, any_feed: bool) -> None:
    for each in outcomes:
        if each.error is None and each.version is not None:
            what = "a new version" if each.changed else "unchanged"
            left = f", {each.version.skipped} of no use here" if each.version.skipped else ""
            echo(f"{each.feed.name}: {what}, {each.version.items} items{left} ({each.version.digest[:16]})")
    if not outcomes:
        echo("nothing is due" if any_feed else "no feeds: docs/threat_intelligence.md says how to add one")


def _kept(version: "Version | None", now: datetime) -> str:
    if version is None:
        return "there is no good version"
    if version.valid_until <= now:
        return "the last good version has expired"
    return f"version {version.digest[:16]} stays until {timestamp(version.valid_until)}"


def _hit(hit: "Hit") -> dict[str, str]:
    return {
        "feed": hit.feed,
        "indicator": hit.indicator,
        "log_odds": f"{hit.log_odds:.4f}",
        "expires": timestamp(hit.expires),
        "version": hit.version,
    }


def _system(text: str) -> int | None:
    digits = text.upper().removeprefix("AS") if text.upper().startswith("AS") else ""
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 10 else None


def _address(text: str) -> str:
    from palladion.errors import FormatError
    from palladion.intel.networks import parse_network

    try:
        parse_network(text.partition("%")[0] if "/" not in text else "")
    except FormatError:
        raise click.BadParameter(f"{text!r} is no address and no AS number", param_hint="ADDRESS") from None
    return text
