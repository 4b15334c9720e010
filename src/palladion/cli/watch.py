"""`palladion watch …`: calibrate the watch, and see what it sees."""

import re
import time
from pathlib import Path
from typing import Any

import click

from palladion.cli.output import (
    echo,
    find_installation,
    json_option,
    print_fields,
    print_json,
)
from palladion.cli.traffic_options import layout_from, layout_options, traffic_file
from palladion.cli.watch_budget import COPY, at_most, budget, print_copies, print_curve
from palladion.cli.watch_calibration import (
    calibrate_on_data,
    calibrate_on_prompts,
    calibrate_on_retained,
    calibrate_on_retained_talk,
    calibrate_on_talk,
    is_language_model,
    print_calibrated,
)
from palladion.cli.watch_campaigns import campaigns
from palladion.cli.watch_copy import export, join
from palladion.cli.watch_feed import feed
from palladion.cli.watch_recorded import calibrate_on_traffic
from palladion.cli.watch_reexecute import reexecute
from palladion.cli.watch_replay import replay
from palladion.cli.watch_report import discovered, print_discoveries, print_withdrawn, report
from palladion.errors import InstallationError

REFRESH_SECONDS = 1.0
COLUMNS = ("client", "standing", "model", "queries", "p", "campaign p", "linked", "covered", COPY, "why")
_ONE_SOURCE = "one of --validation FILE, --traffic FILE, --prompts FILE, --talk FILE and --retained is needed"
SPENT = (
    "watch.alpha_spent: rates are for all epochs of a client together, so that a p-value of its k-th epoch counts "
    "1.64 k² times as much"
)


@click.group()
def watch() -> None:
    """The watch: who is learning a model."""


watch.add_command(budget)
watch.add_command(campaigns)
watch.add_command(export)
watch.add_command(feed)
watch.add_command(join)
watch.add_command(reexecute)
watch.add_command(replay)
watch.add_command(report)


def _image(ctx: click.Context, parameter: click.Parameter, text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    if not re.fullmatch(r"[1-9][0-9]{0,3}x[1-9][0-9]{0,3}(x[1-4])?", text):
        raise click.BadParameter(f"{text!r} is not a shape such as 8x8 or 32x32x3", ctx, parameter)
    return tuple(map(int, text.split("x")))


@watch.command("calibrate", epilog="Example: palladion watch calibrate fraud --validation data.npz")
@click.argument("model")
@click.option(
    "--validation",
    "data",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="NPZ file: x, rows as honest clients send them; y, their classes; client, who sent each (both optional).",
)
@click.option(
    "--retained", is_flag=True, help="Use what is retained of clients' queries to the promoted version instead."
)
@click.option(
    "--traffic",
    type=traffic_file,
    metavar="FILE",
    help="Recorded requests, a line of JSON each, gzipped or not, as palladion watch replay takes them.",
)
@click.option(
    "--without",
    multiple=True,
    metavar="CLIENT",
    help="Leave a recorded client out, such as a known thief. May be repeated.",
)
@click.option("--skip-broken", is_flag=True, help="With --traffic: pass lines that cannot be used, and count them.")
@layout_options
@click.option(
    "--prompts",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Of a language model: JSON lines with task and prompt, gzipped or not, such as its clients send.",
)
@click.option(
    "--talk",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Of a language model: JSON lines with time, client and text, gzipped or not, that its clients have sent.",
)
@click.option(
    "--front-ends",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="With --prompts: share of simulated clients that ask about everything; harvests that do are hidden by them.",
)
@click.option("--image", callback=_image, metavar="HxW", help="Flat rows are pictures of this shape, such as 8x8.")
@click.option(
    "--clients", type=click.IntRange(100, 100_000), default=1400, show_default=True, help="Simulated clients."
)
@click.option(
    "--organisations", type=click.IntRange(20, 10_000), default=400, show_default=True, help="Simulated organisations."
)
@click.option(
    "--horizon", type=click.IntRange(16, 10_000), default=128, show_default=True, help="Queries of a client's epoch."
)
@click.option("--seed", type=click.IntRange(0, 2**32), default=1, show_default=True, help="Of the simulation.")
@click.option(
    "--curve/--no-curve", default=True, help="Measure how good copies get as well, in 5 minutes of CPU time at most."
)
@json_option
@click.pass_context
def calibrate(
    ctx: click.Context,
    /,
    model: str,
    data: Path | None,
    retained: bool,
    traffic: Path | None,
    without: tuple[str, ...],
    skip_broken: bool,
    prompts: Path | None,
    talk: Path | None,
    front_ends: float,
    image: tuple[int, ...] | None,
    clients: int,
    organisations: int,
    horizon: int,
    seed: int,
    curve: bool,
    as_json: bool,
    **places: Any,
) -> None:
    """Learn what honest traffic on MODEL looks like, and how unusual honest clients ever get.

    From the clients in FILE from 20 of them on, else from simulated ones that ask rows like
    those in FILE, each in its own style. Says how many clients there were, and which false-alarm rate so many support.
    With --retained, MODEL is a version such as fraud@3, which answers what clients have asked the promoted one, or a
    language model, whose clients' texts are used where the policy keeps them (retention.texts). With
    --prompts, MODEL is a language model behind the gate: simulated clients draw on these prompts, and the policy has
    to name the calibration that comes of it. With --talk it is one as well, and its thresholds are those of the
    recorded clients, if about 1,340 of them asked enough. With --traffic, MODEL answers what recorded clients asked.

    Recorded clients that are throttled or worse here are left out, since they may be thieves; those whom a case has
    cleared are not, nor are those whom nobody here knows.
    """
    sources = [retained, data is not None, traffic is not None, prompts is not None, talk is not None]
    if sources.count(True) != 1 or (image is not None and data is None and traffic is None):
        raise click.UsageError(_ONE_SOURCE, ctx)
    if traffic is None and (skip_broken or any(places.values())):
        raise click.UsageError("--skip-broken and places of another format go with --traffic FILE alone", ctx)
    if without and prompts is not None:
        raise click.UsageError("--without names recorded clients: in --prompts FILE there are none", ctx)
    if front_ends and prompts is None:
        raise click.UsageError("--front-ends goes with --prompts FILE alone", ctx)
    from palladion.redteam.calibrate import Plan

    installation = find_installation(ctx)
    plan = Plan(clients, organisations, horizon, seed=seed)
    if prompts is not None:
        calibrate_on_prompts(installation, model, prompts, plan, as_json=as_json, front_ends=front_ends)
        return
    if talk is not None:
        calibrate_on_talk(installation, model, talk, plan, as_json=as_json, without=without)
        return
    if retained and is_language_model(installation, model):
        calibrate_on_retained_talk(installation, model, plan, as_json=as_json, without=without)
        return
    if data is not None:
        document = calibrate_on_data(installation, model, data, image, plan, curve=curve, without=without)
    elif traffic is not None:
        places = {"layout": layout_from(ctx, places), "lenient": skip_broken, "curve": curve, "without": without}
        document = calibrate_on_traffic(installation, model, traffic, image, plan, **places)
    else:
        document = calibrate_on_retained(installation, model, plan, without=without)
    if as_json:
        print_json(document)
        return
    print_calibrated(document, installation.policy.watch)
    print_curve(document.get("curve"))


@watch.command("live", epilog="Example: palladion watch live --once")
@click.option("--once", is_flag=True, help="Print the table once, instead of renewing it every second.")
@json_option
@click.pass_context
def live(ctx: click.Context, once: bool, as_json: bool) -> None:
    """Show who asks the running gate, how each client stands, and why, most suspicious first.

    Queries answered are counted since the gate started. The columns of a client go on over a restart: they begin with
    its first query under the model's calibration in use, and anew when a person raises its standing.
    """
    if as_json:
        print_json(_status(ctx))
        return
    while True:
        status = _status(ctx)
        if not once:
            click.clear()
        rows = [_row(client, model) for client in status["clients"] for model in client["models"] or [None]]
        echo(f"{status['answered']} queries answered since the gate started, {status['clients_total']} clients")
        print_copies(COLUMNS, rows)
        print_discoveries(discovered(status))
        if status.get("alpha_spent") == "lifetime":
            echo(SPENT)
        for model, drift in status["drift"].items():
            if drift["left_at"] is not None:
                print_withdrawn(model, drift["left_at"], drift["moved"])
        if once:
            return
        time.sleep(REFRESH_SECONDS)


@watch.command("explain", epilog="Example: palladion watch explain acme/acme")
@click.argument("client")
@json_option
@click.pass_context
def explain(ctx: click.Context, client: str, as_json: bool) -> None:
    """Say why CLIENT stands as it does: figures, linked accounts, and what is unlike honest queries."""
    status = _status(ctx)
    names = {item["id"]: item["client"] for item in status["clients"]}
    wanted = client if "/" in client else f"{client}/{client}"
    found = [
        item for item in status["clients"] if wanted == item["client"] or client in {item["id"], item["pseudonym"]}
    ]
    if not found:
        raise InstallationError(f"the running gate knows no client {client!r}", "palladion client list")
    if as_json:
        print_json(found[0])
        return
    echo(f"{found[0]['client']} ({found[0]['pseudonym']}) is {found[0]['standing']}")
    for listed in found[0].get("listed", []):
        echo(f"  {listed}")
    if not found[0]["models"]:
        echo("  no query of it to a model is known under the calibration in use")
    for model in found[0]["models"]:
        others = [names.get(member, member) for member in model["group"] if member != found[0]["id"]]
        if model["linked"] > len(others):
            others.append(f"{model['linked'] - len(others)} more")
        echo(f"  on {model['model']}:")
        print_fields(
            [
                ("  queries", model["queries"]),
                (
                    "  p-value",
                    f"{model['p_value']:.3g} of its own queries, {model['campaign_p_value']:.3g} of its group's",
                ),
                ("  linked with", ", ".join(others) or "nobody"),
                ("  covered", f"{model['buckets']} buckets itself, {model['group_buckets']} with its group"),
                *_copy(model),
                *[("  unlike honest", reason) for reason in model["reasons"]],
            ]
        )


def _status(ctx: click.Context) -> dict[str, Any]:
    status = find_installation(ctx).server_status()
    if status is None:
        raise InstallationError("no gate is running here", "palladion serve")
    return status


def _copy(model: dict[str, Any]) -> list[tuple[str, str]]:
    if model.get("fidelity") is None:
        return []
    return [("  copy", f"could have one of fidelity {at_most(model['fidelity'])} by now")]


def _row(client: dict[str, Any], model: dict[str, Any] | None) -> list[object]:
    if model is None:
        return [client["client"], client["standing"], *[""] * (len(COLUMNS) - 2)]
    return [
        client["client"],
        client["standing"],
        model["model"],
        model["queries"],
        f"{model['p_value']:.3g}",
        f"{model['campaign_p_value']:.3g}",
        model["linked"],
        model["group_buckets"],
        at_most(model.get("fidelity")),
        model["reasons"][0] if model["reasons"] else "",
    ]
