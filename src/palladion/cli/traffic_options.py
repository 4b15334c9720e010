"""Options of commands that take recorded traffic, and opening it, for three commands."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from palladion.cli.output import Progress, warn

if TYPE_CHECKING:
    from palladion.keys import Root
    from palladion.lifecycle.installation import Installation
    from palladion.policy import Policy
    from palladion.redteam.answering import Answering, Subject
    from palladion.redteam.recorded_talk import RecordedTalker
    from palladion.redteam.replay import Replay
    from palladion.redteam.replay_talk import TalkReplay
    from palladion.watch.lines import Source
    from palladion.watch.recorded import Layout, Recorded

TOLD_EVERY = 64  # requests

_Command = Callable[..., Any]
_PLACES = {
    "time": "when it was asked",
    "client": "who asked",
    "inputs": "the rows",
    "scores": "the class scores that were answered",
    "organisation": "the client's organisation",
    "address": "the network address that it came from",
    "model": "the model that was asked",
    "route": "the route that was asked",
}

talk_option = click.option(
    "--talk",
    type=click.Path(dir_okay=False, exists=True, path_type=Path),
    metavar="FILE",
    help="Of a language model: what clients asked it, a request a line (docs/traffic.md).",
)
traffic_file = click.Path(dir_okay=False, exists=True, allow_dash=True, path_type=Path)


@dataclass(frozen=True)
class Taken:
    """What was taken of the traffic: requests, lines that could not be used, and what a sample lacks, if it is one."""

    requests: int
    broken: int
    answered: int
    retained: dict[str, Any] | None = None


def layout_options(command: _Command) -> _Command:
    """Options that say where things stand in lines of another format."""
    for name, what in reversed(_PLACES.items()):
        text = f"Lines are of another format: the place of {what}, such as $.body.{name}."
        command = click.option(f"--{name}-path", metavar="PATH", help=text)(command)
    return command


def require_no_others(ctx: click.Context, number: int | None, skip_broken: bool, places: dict[str, Any]) -> None:
    """Raise UsageError where options are set that say nothing of recorded talk."""
    if number is not None or skip_broken or any(places.values()):
        raise click.UsageError("--talk has a format of its own, and language models have no version", ctx)


def layout_from(ctx: click.Context, options: dict[str, Any]) -> "Layout":
    """The layout that `layout_options` name; the own format without any."""
    from palladion.watch.recorded import NATIVE, layout_of

    named = {name: options[f"{name}_path"] for name in _PLACES}
    if not any(named.values()):
        return NATIVE
    try:
        return layout_of(**named)
    except ValueError as error:
        raise click.UsageError(f"{error} (--time-path, --client-path, --inputs-path)", ctx) from None


@contextmanager
def source_of(path: Path) -> Iterator["Source"]:
    """The lines of a file, or of standard input."""
    from palladion.watch.lines import open_lines

    with open_lines(path, sys.stdin.buffer) as source:
        yield source


def replay_traffic(
    installation: "Installation",
    root: "Root",
    subject: "Subject",
    answering: "Answering",
    replays: "list[Replay]",
    *,
    traffic: Path | None,
    layout: "Layout",
    lenient: bool,
    bar: Progress,
) -> Taken:
    """Show a file's requests to all `replays`, or without one what is retained."""
    from palladion.redteam.replay import of_model, replay_all
    from palladion.redteam.retained_traffic import read_retained_traffic
    from palladion.watch.lines import read_requests
    from palladion.watch.recorded import in_order

    if traffic is None:
        found = read_retained_traffic(installation, root, subject.version, bar)
        count = replay_all(_told(found.requests, len(found.requests), bar), answering, replays)
        sample = {
            "source": found.source,
            "clients": found.clients,
            "thinned": found.thinned,
            "undated": found.undated,
            "left_over": found.left_over,
        }
        return Taken(count, 0, answering.answered, sample)
    with source_of(traffic) as source:
        requests = in_order(read_requests(source, layout, strict=not lenient), strict=not lenient)
        count = replay_all(
            _measured(of_model(requests, subject, installation.policy), source, bar),
            answering,
            replays,
            broken=partial(source.break_on, strict=False) if lenient else None,
        )
        if source.first_broken is not None:
            warn(f"{source.broken} lines could not be used, the first because {source.first_broken.message}")
        return Taken(count, source.broken, answering.answered)


def replay_talk_of(
    installation: "Installation",
    root: "Root",
    model: str,
    policies: "Sequence[Policy]",
    *,
    talk: Path | None,
    enforce: bool,
    bar: Progress,
) -> "tuple[list[TalkReplay], Taken]":
    """Replay a file of recorded talk to a language model, or without one what is retained, under some policies."""
    from palladion.redteam.recorded_talk import read_talk
    from palladion.redteam.replay import read_roster
    from palladion.redteam.replay_talk import TalkReplay, replay_talk
    from palladion.redteam.retained_talk import read_talk_to_replay

    roster = read_roster(installation, root)
    runs = [TalkReplay(installation, root, model, roster, policy, enforce=enforce) for policy in policies]
    sample = None
    if talk is not None:
        talkers: Sequence[RecordedTalker] = read_talk(talk)
    else:
        found = read_talk_to_replay(installation, model, progress=bar)
        talkers = found.talkers
        sample = {
            "source": found.source,
            "clients": len(talkers),
            "thinned": found.thinned,
            "undated": found.undated,
            "left_over": found.left_over,
        }
    total, count = sum(len(talker.conversation.queries) for talker in talkers), 0
    for count in replay_talk(talkers, runs):
        if count % TOLD_EVERY == 0:
            bar(count, total, "replay")
    return runs, Taken(count, 0, 0, sample)


def _told(items: "Sequence[Recorded]", total: int, bar: Progress) -> "Iterator[Recorded]":
    for done, item in enumerate(items):
        if done % TOLD_EVERY == 0:
            bar(done, total, "replay")
        yield item


def _measured(items: "Iterator[Recorded]", source: "Source", bar: Progress) -> "Iterator[Recorded]":
    for done, item in enumerate(items):
        if done % TOLD_EVERY == 0:
            bar(source.done, source.size, "replay")
        yield item
