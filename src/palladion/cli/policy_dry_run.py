"""`palladion policy dry-run`: two policies on the same recorded traffic, and whom they would treat differently."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from palladion.cli.output import (
    VERSION_NUMBER,
    echo,
    find_installation,
    json_option,
    print_json,
    print_table,
    progress,
)
from palladion.cli.traffic_options import (
    Taken,
    layout_from,
    layout_options,
    replay_talk_of,
    replay_traffic,
    require_no_others,
    talk_option,
    traffic_file,
)
from palladion.cli.watch_replay import about, about_talk, course_document, outcome_document, percent, print_taken, share
from palladion.errors import FINDING

if TYPE_CHECKING:
    from palladion.lifecycle.installation import Installation
    from palladion.policy import Policy
    from palladion.redteam.replay import Run
    from palladion.watch.recorded import Layout
    from palladion.watch.replay import Course, Difference, Outcome

COLUMNS = ("client", "before", "after", "reduced before", "after", "refused before", "after", "why")
CLIENTS_SHOWN = 50
DISTURBED, REFUSED = "disturbed", "refused"

_file = click.Path(dir_okay=False, exists=True, path_type=Path)


@click.command(
    "dry-run",
    epilog="Example: palladion policy dry-run next.toml --model fraud --traffic traffic.jsonl --fail-on disturbed",
)
@click.argument("file", type=_file)
@click.option("--traffic", type=traffic_file, metavar="FILE", help="Requests, one a line; '-' for standard input.")
@talk_option
@click.option("--retained", is_flag=True, help="Use what is retained of clients' queries instead.")
@click.option(
    "--model", metavar="NAME", help="The model that was asked; of several in palladion.toml it has to be named."
)
@click.option("--version", "number", type=VERSION_NUMBER, metavar="NUMBER", help="Another than the promoted version.")
@click.option("--enforce", is_flag=True, help="Take routes that observe as enforcing, under both policies.")
@click.option(
    "--fail-on",
    type=click.Choice([DISTURBED, REFUSED]),
    help="Exit with 1 where FILE would disturb a client for its standing that palladion.toml does not, or where limits "
    "and budgets would refuse one more.",
)
@click.option("--skip-broken", is_flag=True, help="Pass lines that cannot be used, or come too late, and count them.")
@layout_options
@json_option
@click.pass_context
def dry_run(
    ctx: click.Context,
    /,
    file: Path,
    traffic: Path | None,
    talk: Path | None,
    retained: bool,
    model: str | None,
    number: int | None,
    enforce: bool,
    fail_on: str | None,
    skip_broken: bool,
    as_json: bool,
    **places: Any,
) -> int:
    """Replay traffic under palladion.toml and under FILE, and say whom the two would treat differently.

    As `palladion watch replay` does, which says what a replay is; routes do what each policy says, observe or enforce.
    """
    if [traffic is not None, talk is not None, retained].count(True) != 1:
        raise click.UsageError("either --traffic FILE is needed, or --talk FILE, or --retained alone", ctx)
    from palladion.policy import load_policy
    from palladion.watch.replay import differences

    layout = layout_from(ctx, places)
    installation = find_installation(ctx)
    before, after = installation.policy, load_policy(file)
    models = list(dict.fromkeys(item.model for item in before.route if (item.protocol == "openai") == bool(talk)))
    if model is None and len(models) != 1:
        raise click.UsageError(f"--model is needed: palladion.toml serves {', '.join(models) or 'none'}", ctx)
    name = model or models[0]
    if talk is not None:
        require_no_others(ctx, number, skip_broken, places)
        done = _of_talk(installation, name, (before, after), talk, enforce=enforce)
    else:
        version = name if number is None else f"{name}@{number}"
        done = _of_rows(
            installation, version, (before, after), traffic, layout=layout, enforce=enforce, lenient=skip_broken
        )
    was, would = (run.outcome() for run in done.runs)
    found = differences(was, would)
    if as_json:
        print_json(
            {
                **done.stated,
                "before": outcome_document(was),
                "after": outcome_document(would),
                "differences": [
                    {
                        "client": item.client,
                        "newly_disturbed": item.newly_disturbed,
                        "newly_refused": item.newly_refused,
                        "before": course_document(item.before),
                        "after": course_document(item.after),
                    }
                    for item in found
                ],
            }
        )
    else:
        print_taken(done.name, done.taken)
        _print(was, would, found)
    failing = {DISTURBED: "newly_disturbed", REFUSED: "newly_refused"}
    return FINDING if fail_on and any(getattr(item, failing[fail_on]) for item in found) else 0


class _Done(NamedTuple):
    """Replays under both policies, of whom, and what is said of them."""

    runs: "Sequence[Run]"
    name: str
    stated: dict[str, Any]
    taken: Taken


def _of_talk(
    installation: "Installation", model: str, policies: "Sequence[Policy]", talk: Path, *, enforce: bool
) -> _Done:
    root = installation.open_gate_root()
    with progress("dry run") as bar:
        runs, taken = replay_talk_of(installation, root, model, policies, talk=talk, enforce=enforce, bar=bar)
    return _Done(runs, model, about_talk(model, runs[0], taken), taken)


def _of_rows(
    installation: "Installation",
    version: str,
    policies: "Sequence[Policy]",
    traffic: Path | None,
    *,
    layout: "Layout",
    enforce: bool,
    lenient: bool,
) -> _Done:
    from palladion.redteam.answering import Answering, open_subject, routes_of
    from palladion.redteam.replay import Replay, read_roster

    root = installation.open_gate_root()
    with progress("dry run") as bar:
        subject = open_subject(installation, version)
        answering = Answering(subject, routes_of(policies[0], subject.version.model)[0])
        roster = read_roster(installation, root)
        runs = [Replay(installation, root, subject, roster, policy, enforce=enforce) for policy in policies]
        taken = replay_traffic(
            installation, root, subject, answering, runs, traffic=traffic, layout=layout, lenient=lenient, bar=bar
        )
    return _Done(runs, subject.name, about(subject, taken), taken)


def _print(was: "Outcome", would: "Outcome", found: "list[Difference]") -> None:
    print_table(("", "before", "after"), [(name, *_pair(was, would, name)) for name in _SUMS])
    if not found:
        echo("no client would be treated differently")
        return
    echo(f"{len(found)} clients would be treated differently, those that are worse off first")
    print_table(COLUMNS, [_row(item) for item in found[:CLIENTS_SHOWN]])
    if len(found) > CLIENTS_SHOWN:
        echo(f"and {len(found) - CLIENTS_SHOWN} more clients: --json shows all")


_SUMS = (
    "policy",
    "watched",
    "throttled",
    "degraded",
    "suspended",
    "clients disturbed",
    "answers disturbed",
    "unlike",
    "refused",
)


def _pair(was: "Outcome", would: "Outcome", name: str) -> list[str]:
    return [_sums(item)[name] for item in (was, would)]


def _sums(found: "Outcome") -> dict[str, str]:
    standings = found.by_standing()
    clients, answers = (
        share(found.disturbed_clients, len(found.courses)),
        share(found.disturbed_answers, found.requests),
    )
    refused = ", ".join(f"{count} {kind}" for kind, count in sorted(found.withheld.items()))
    return {
        "policy": found.policy[:16],
        **{name: str(standings[name]) for name in ("watched", "throttled", "degraded", "suspended")},
        "clients disturbed": f"{found.disturbed_clients} ({percent(clients)})",
        "answers disturbed": f"{found.disturbed_answers} ({percent(answers)})",
        "unlike": str(found.unlike),
        "refused": refused or "none",
    }


def _row(item: "Difference") -> list[object]:
    turn = item.after.worst_turn or item.before.worst_turn
    return [
        item.client,
        _standing(item.before),
        _standing(item.after),
        item.before.reduced,
        item.after.reduced,
        sum(item.before.withheld.values()),
        sum(item.after.withheld.values()),
        turn.reason if turn else "",
    ]


def _standing(course: "Course") -> str:
    turn = course.worst_turn
    return f"would be {course.worst}" if turn is not None and turn.proposed else course.worst
