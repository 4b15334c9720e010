"""`palladion watch replay`: what the watch and limits would have made of recorded traffic, under any policy."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from palladion.cli.output import (
    VERSION_NUMBER,
    echo,
    find_installation,
    json_option,
    print_fields,
    print_json,
    print_table,
    progress,
    warn,
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
from palladion.cli.watch_calibration import is_language_model, print_promise, promised
from palladion.clock import timestamp

if TYPE_CHECKING:
    from palladion.policy import Policy
    from palladion.redteam.answering import Subject
    from palladion.redteam.replay_talk import TalkReplay
    from palladion.watch.campaign_list import Campaign
    from palladion.watch.replay import Course, Outcome, Turn

COURSE_COLUMNS = ("client", "standing", "at", "query", "answers", "reduced", "refused", "why")
CAMPAIGN_COLUMNS = ("campaign", "members", "linked by", "p", "covered", "why")
CLIENTS_SHOWN = 50  # of those concerned, to people; --json has all
MEMBERS_SHOWN = 5


@click.command("replay", epilog="Example: palladion watch replay traffic.jsonl.gz --model fraud --policy next.toml")
@click.argument("traffic", type=traffic_file, required=False)
@click.option("--model", required=True, metavar="NAME", help="The model that was asked.")
@click.option("--version", "number", type=VERSION_NUMBER, metavar="NUMBER", help="Another than the promoted version.")
@click.option(
    "--policy",
    "policy_file",
    type=click.Path(dir_okay=False, exists=True, path_type=Path),
    metavar="FILE",
    help="Another policy than palladion.toml: of it count [watch], [limits], contracts, and the model's routes.",
)
@click.option("--retained", is_flag=True, help="Replay what is retained of clients' queries instead of a file.")
@talk_option
@click.option("--as-written", is_flag=True, help="Routes that observe do so; else all are taken as enforcing.")
@click.option("--skip-broken", is_flag=True, help="Pass lines that cannot be used, or come too late, and count them.")
@layout_options
@json_option
@click.pass_context
def replay(
    ctx: click.Context,
    /,
    traffic: Path | None,
    model: str,
    number: int | None,
    policy_file: Path | None,
    retained: bool,
    talk: Path | None,
    as_written: bool,
    skip_broken: bool,
    as_json: bool,
    **places: Any,
) -> None:
    """Say whom the watch would have watched, throttled, degraded and suspended in TRAFFIC, when and why.

    TRAFFIC has a request a line (docs/traffic.md), `-` is standard input. Where a line does not hold what was answered,
    the version answers in memory. Limits, budgets and standings act as in the gate, by the traffic's own clock, on
    clients who have all begun anew. Of a language model --talk has what was asked, and --retained what was kept of it.
    Writes nothing, and needs no gate.
    """
    if [traffic is not None, talk is not None, retained].count(True) != 1:
        raise click.UsageError("either TRAFFIC is needed, or --talk FILE, or --retained alone", ctx)
    from palladion.policy import load_policy
    from palladion.redteam.answering import Answering, open_subject, routes_of
    from palladion.redteam.replay import Replay, read_roster

    layout = layout_from(ctx, places)
    installation = find_installation(ctx)
    policy = installation.policy if policy_file is None else load_policy(policy_file)
    root = installation.open_gate_root()
    if talk is not None or (retained and is_language_model(installation, model)):
        require_no_others(ctx, number, skip_broken, places)
        with progress("replay") as bar:
            runs, taken = replay_talk_of(
                installation, root, model, [policy], talk=talk, enforce=not as_written, bar=bar
            )
        _say_talk(model, runs[0], taken, policy, as_json=as_json)
        return
    with progress("replay") as bar:
        subject = open_subject(installation, model if number is None else f"{model}@{number}")
        answering = Answering(subject, routes_of(policy, subject.version.model)[0])
        roster = read_roster(installation, root)
        run = Replay(installation, root, subject, roster, policy, enforce=not as_written)
        taken = replay_traffic(
            installation, root, subject, answering, [run], traffic=traffic, layout=layout, lenient=skip_broken, bar=bar
        )
    found, promise = run.outcome(), promised(subject.calibration, policy.watch)
    if as_json:
        print_json(
            {
                **about(subject, taken),
                **outcome_document(found),
                "promised": promise,
            }
        )
    else:
        print_taken(subject.name, taken)
        _print(found)
        echo(f"promised of honest clients, in each {promise['epoch_queries']} queries:")
        print_promise(promise)


def _say_talk(model: str, run: "TalkReplay", taken: Taken, policy: "Policy", *, as_json: bool) -> None:
    found, texts = run.outcome(), run.calibration
    promise = None if texts is None else promised(texts.calibration, policy.watch)
    if as_json:
        print_json({**about_talk(model, run, taken), **outcome_document(found), "promised": promise})
        return
    print_taken(model, taken)
    _print(found)
    if promise is None:
        echo("uncalibrated: words and parameters are counted by rules, and no rate is promised of honest clients")
    else:
        echo(f"promised of honest clients, in each {promise['epoch_queries']} queries:")
        print_promise(promise)


def about_talk(model: str, run: "TalkReplay", taken: Taken) -> dict[str, Any]:
    """What was replayed of a language model, which has no version, against what."""
    return {
        "model": model,
        "version": None,
        "calibration": run.digest,
        "broken_lines": taken.broken,
        "answered_here": taken.answered,
        "retained": taken.retained,
    }


def about(subject: "Subject", taken: Taken) -> dict[str, Any]:
    """What was replayed against what."""
    return {
        "model": subject.version.model,
        "version": subject.version.number,
        "calibration": subject.row.digest,
        "broken_lines": taken.broken,
        "answered_here": taken.answered,
        "retained": taken.retained,
    }


def outcome_document(found: "Outcome") -> dict[str, Any]:
    """One replay as a document."""
    return {
        "policy": found.policy,
        "requests": found.requests,
        "queries": found.queries,
        "from": moment(found.began),
        "until": moment(found.ended),
        "clients": len(found.courses),
        "by_standing": dict(sorted(found.by_standing().items())),
        "clients_disturbed": found.disturbed_clients,
        "share_of_clients": share(found.disturbed_clients, len(found.courses)),
        "unlike": found.unlike,
        "answers_disturbed": found.disturbed_answers,
        "share_of_answers": share(found.disturbed_answers, found.requests),
        "withheld": dict(sorted(found.withheld.items())),
        "limits": dict(found.limits),
        "concerned": [course_document(course) for course in found.concerned()],
        "campaigns": [asdict(campaign) for campaign in found.campaigns],
    }


def course_document(course: "Course") -> dict[str, Any]:
    """One client's course as a document."""
    return {
        "client": course.client,
        "organisation": course.organisation,
        "standing": course.worst,
        "disturbed": course.disturbed,
        "requests": course.requests,
        "queries": course.queries,
        "reduced": course.reduced,
        "unlike": course.unlike,
        "withheld": dict(sorted(course.withheld.items())),
        "turns": [_turn_document(turn) for turn in course.turns],
    }


def _turn_document(turn: "Turn") -> dict[str, Any]:
    return {**asdict(turn), "at": moment(turn.at)}


def moment(seconds: float | None) -> str | None:
    """A time as people and documents have it."""
    from datetime import UTC, datetime

    return None if seconds is None else timestamp(datetime.fromtimestamp(seconds, UTC))


def share(part: int, whole: int) -> float | None:
    """A share; None of nothing."""
    return part / whole if whole else None


def percent(value: float | None) -> str:
    """A share for people."""
    return "nobody" if value is None else f"{value:.2%}"


def print_taken(name: str, taken: Taken) -> None:
    """What was replayed to whom, to people."""
    answered = f"; {name} answered {taken.answered} queries" if taken.answered else ""
    if taken.retained is None:
        echo(f"replayed {taken.requests} requests to {name}{answered}")
        return
    kept = taken.retained
    echo(f"replayed {taken.requests} retained requests of {kept['clients']} clients to {kept['source']}{answered}")
    warn(
        "what is retained is a sample: limits refuse less than they would, and the watch sees part of "
        f"{kept['thinned']} clients' queries"
    )
    if kept["undated"] or kept["left_over"]:
        warn(f"left out: {kept['undated']} queries that the ledger does not date, {kept['left_over']} clients")


def _print(found: "Outcome") -> None:
    if not found.requests:
        return
    queries = f"{found.queries} queries of {len(found.courses)} clients"
    echo(f"{queries}, {moment(found.began)} to {moment(found.ended)}, policy {found.policy[:16]}")
    concerned = found.concerned()
    if concerned:
        print_table(COURSE_COLUMNS, [_row(course) for course in concerned[:CLIENTS_SHOWN]])
    if len(concerned) > CLIENTS_SHOWN:
        echo(f"and {len(concerned) - CLIENTS_SHOWN} more clients: --json shows all")
    print_campaigns(found.campaigns)
    withheld = ", ".join(f"{count} {kind}" for kind, count in sorted(found.withheld.items())) or "none"
    clients, answers = (
        share(found.disturbed_clients, len(found.courses)),
        share(found.disturbed_answers, found.requests),
    )
    disturbed = f"{found.disturbed_clients} clients ({percent(clients)}), {found.disturbed_answers} answers"
    print_fields(
        [
            ("disturbed", f"{disturbed} ({percent(answers)})"),
            ("too unlike honest ones", f"{found.unlike} requests" if found.unlike else None),
            ("withheld", withheld),
            ("by limit", ", ".join(f"{count} {name}" for name, count in found.limits.items()) or None),
        ]
    )


def print_campaigns(campaigns: "Sequence[Campaign]") -> None:
    """Campaigns to people."""
    if not campaigns:
        return
    rows = [
        (
            number,
            _members(campaign),
            ", ".join(campaign.links),
            f"{campaign.p_value:.3g}",
            campaign.covered,
            _first_words(campaign.reasons),
        )
        for number, campaign in enumerate(campaigns[:CLIENTS_SHOWN], 1)
    ]
    print_table(CAMPAIGN_COLUMNS, rows)


def _members(campaign: "Campaign") -> str:
    shown = ", ".join(campaign.members[:MEMBERS_SHOWN])
    return shown if campaign.size <= MEMBERS_SHOWN else f"{shown} and {campaign.size - MEMBERS_SHOWN} more"


def _row(course: "Course") -> list[object]:
    turn = course.worst_turn
    reason = _first_words(turn.features) or turn.reason if turn else ""
    return [
        course.client,
        course.worst if turn is None or not turn.proposed else f"would be {course.worst}",
        moment(turn.at) if turn else "",
        turn.queries if turn else "",
        course.requests - sum(course.withheld.values()),
        course.reduced,
        sum(course.withheld.values()),
        reason,
    ]


def _first_words(features: Sequence[str]) -> str:
    return ", ".join(feature.partition(":")[0] for feature in features)
