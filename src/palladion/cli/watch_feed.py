"""`palladion watch feed`: the watch beside the data path, fed with logs as they are written."""

import json
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from palladion.cli.output import VERSION_NUMBER, echo, find_installation, json_option, warn
from palladion.cli.traffic_options import layout_from, layout_options
from palladion.cli.watch_replay import moment

if TYPE_CHECKING:
    from palladion.watch.feed import Alert

POLL_SECONDS = 0.5

_file = click.Path(dir_okay=False, allow_dash=True, path_type=Path)


@click.command("feed", epilog="Example: palladion watch feed /var/log/predict.jsonl --model fraud --follow")
@click.argument("file", type=_file, default=Path("-"))
@click.option("--model", required=True, metavar="NAME", help="The model that was asked.")
@click.option("--version", "number", type=VERSION_NUMBER, metavar="NUMBER", help="Another than the promoted version.")
@click.option("--follow", is_flag=True, help="Wait for more at the end of FILE, also after it was rotated.")
@layout_options
@json_option
@click.pass_context
def feed(
    ctx: click.Context,
    /,
    file: Path,
    model: str,
    number: int | None,
    follow: bool,
    as_json: bool,
    **places: Any,
) -> None:
    """Watch requests that FILE, or standard input, tells of, and say how their clients should stand. Enforces nothing.

    FILE has a request a line (docs/traffic.md). Each change goes into the ledger as `standing.proposed`, whether a gate
    runs or not. What was learned is kept apart from the gate's, and FILE is read on where the last run has stopped.
    Lines that cannot be used are counted. With --json, each alert is one line of JSON.
    """
    from palladion.redteam.answering import Answering, open_subject, routes_of
    from palladion.redteam.feeding import Feeding
    from palladion.redteam.replay import read_roster
    from palladion.watch.feed_store import open_store
    from palladion.watch.follow import FileLines, StreamLines

    layout = layout_from(ctx, places)
    installation = find_installation(ctx)
    root = installation.open_gate_root()
    subject = open_subject(installation, model if number is None else f"{model}@{number}")
    answering = Answering(subject, routes_of(installation.policy, subject.version.model)[0])
    log = None if str(file) == "-" else file.resolve()
    with open_store(installation.paths.directory, subject.version.model) as store:
        feeding = Feeding(
            installation,
            root,
            subject,
            answering=answering,
            roster=read_roster(installation, root),
            store=store,
            layout=layout,
            log=log,
            alert=_say_json if as_json else _say,
        )
        if log is None:
            lines: StreamLines | FileLines = StreamLines(sys.stdin.buffer, wait_seconds=POLL_SECONDS)
        else:
            lines = FileLines(log, store.position(log), follow=follow)
            if lines.gap:
                warn(f"{log} was rotated away since the last run: what was written to it meanwhile is not seen")
        try:
            with _stopping():
                feeding.run(lines, lambda: time.sleep(0 if log is None else POLL_SECONDS))
        except KeyboardInterrupt:
            feeding.finish(lambda: time.sleep(POLL_SECONDS))
    if feeding.first_broken is not None:
        warn(f"{feeding.broken} lines could not be used, the first because {feeding.first_broken.message}")
    if feeding.left_out:
        warn(f"{feeding.left_out} requests of clients that were too many to be watched")
    echo(f"{feeding.requests} requests to {subject.name} were watched", err=True)


@contextmanager
def _stopping() -> Iterator[None]:
    """End by SIGTERM as by Ctrl-C: what was taken in is kept."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _say(alert: "Alert", client: str) -> None:
    linked = f", with {alert.linked} linked clients" if alert.linked else ""
    features = ", ".join(feature.partition(":")[0] for feature in alert.features)
    echo(f"{moment(alert.at)}  {client} should be {alert.standing}{linked}: {alert.reason}")
    if features:
        echo(f"  unlike honest: {features}")


def _say_json(alert: "Alert", client: str) -> None:
    document = {
        "client": client,
        "from": alert.before,
        "to": alert.standing,
        "at": moment(alert.at),
        "reason": alert.reason,
        "features": alert.features,
        "linked": alert.linked,
    }
    # in ASCII, so that a hostile name is JSON still where it is printed escaped
    echo(json.dumps(document))
