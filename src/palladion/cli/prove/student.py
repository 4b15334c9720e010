"""`palladion prove student`: which account was a model trained with?"""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from palladion.cli.output import actor, echo, find_installation, json_option, print_json, print_table, progress
from palladion.cli.prove.api import (
    SuspectType,
    api_options,
    capturing,
    document_of_api,
    limits_of,
    print_end,
    read_api,
    require_use,
)
from palladion.cli.prove.shared import smallest, strength
from palladion.errors import FINDING, INCONCLUSIVE

if TYPE_CHECKING:
    from palladion.lifecycle.campaign import CampaignTest
    from palladion.lifecycle.installation import Installation
    from palladion.lifecycle.probe import Api
    from palladion.lifecycle.student import StudentTest
    from palladion.lifecycle.student_api import StudentOutcome
    from palladion.transit.url import Url

BUDGET = 2000  # as lifecycle.student_api has it, which is imported only where an API is asked
SHOWN_MAX = 20  # clients in the table, the strongest first; --json has all


def _client(ctx: click.Context, parameter: click.Parameter, texts: tuple[str, ...]) -> list[tuple[str, str]]:
    """`acme/web` as organisation and name; `acme` is the client of that organisation that bears its name."""
    parts = [text.partition("/") for text in texts]
    return [(organisation, name or organisation) for organisation, _, name in parts]


@click.command("student", epilog="Example: palladion prove student https://… --client acme --key-file KEY")
@click.argument("suspect", type=SuspectType(folders=False))
@click.option(
    "--reference",
    "versions",
    multiple=True,
    metavar="VERSION",
    help="Test answers of this version only, such as fraud@2; may be repeated. Without it, of all.",
)
@click.option(
    "--client",
    "clients",
    multiple=True,
    metavar="CLIENT",
    callback=_client,
    help="Test this client only, such as acme or acme/web; may be repeated. Without it, all.",
)
@partial(
    api_options,
    budget=BUDGET,
    power="All clients and versions share them; 500 to 1,000 of one client's can be a verdict.",
)
@json_option
@click.pass_context
def student(
    ctx: click.Context,
    suspect: "Path | Url",
    versions: tuple[str, ...],
    clients: list[tuple[str, str]],
    budget: int,
    key_file: Path | None,
    no_key: bool,
    api_file: Path | None,
    capture: Path | None,
    insecure_http: bool,
    as_json: bool,
) -> int:
    """Was SUSPECT trained on the answers that one of our clients got?

    An ONNX file, or the model behind the address of an API, is asked the queries that are kept of each client on routes
    that mark answers: a file all of them, an address the earliest ones, within a budget. The p-value bounds the chance
    that an innocent client is named, also if it chose queries by earlier answers. It rests on labels, also where
    SUSPECT gives scores, and pays for every client. Runs on the host that served, with the gate's keys.
    """
    from palladion.lifecycle.student import together

    require_use(ctx, address=not isinstance(suspect, Path))
    installation, outcome = find_installation(ctx), None
    if isinstance(suspect, Path):
        tests = _ask_file(installation, suspect, versions, clients)
    else:
        api = read_api(suspect, api_file=api_file, key_file=key_file, no_key=no_key)
        outcome = _ask_api(installation, api, versions, clients, budget=budget, capture=capture)
        tests = list(outcome.tests)
    ended = outcome is not None and outcome.error is not None
    named = [item for item in tests if item.named]
    # clients that were chosen were chosen by something, perhaps by the answers they got: no p-value would come of it
    campaign = None if clients else together(tests)
    found = bool(named) or (campaign is not None and campaign.found)
    compared = sum(item.comparable for item in tests)
    if as_json:
        document = {"finding": found, "tested": compared, "clients": [_document(item) for item in tests]}
        if campaign is not None:
            document["together"] = {"log10_p": campaign.log10_p, "found": campaign.found}
        print_json(document | (document_of_api(outcome) if outcome else {}))
    else:
        _print(str(suspect), tests, named, campaign, ended=ended)
        if outcome is not None:
            print_end(outcome)
    if found:
        return FINDING
    # a client whose queries were damaged, or not asked any more, may be the one that is looked for
    return 0 if compared and not ended and not any(item.unreadable for item in tests) else INCONCLUSIVE


def _ask_file(
    installation: "Installation", suspect: Path, versions: tuple[str, ...], clients: list[tuple[str, str]]
) -> "list[StudentTest]":
    from palladion.lifecycle.student import asker, prove_student
    from palladion.model.digest import model_digest
    from palladion.model.read import read_file
    from palladion.model.run import open_session

    model = read_file(suspect, bytes_max=installation.policy.scan.file_bytes_max)
    return prove_student(
        installation,
        asker(open_session(model)),
        suspect=suspect.name,
        digest=model_digest(model).hex(),
        versions=versions,
        clients=clients,
        actor=actor(),
    )


def _ask_api(
    installation: "Installation",
    api: "Api",
    versions: tuple[str, ...],
    clients: list[tuple[str, str]],
    *,
    budget: int,
    capture: Path | None,
) -> "StudentOutcome":
    from palladion.lifecycle.student_api import prove_student_api

    with capturing(capture, installation.clock) as path, progress(f"asking {api.url}") as bar:
        return prove_student_api(
            installation,
            api,
            versions=versions,
            clients=clients,
            budget=budget,
            capture=path,
            actor=actor(),
            limits=limits_of(api.url),
            progress=bar,
        )


def _print(
    suspect: str,
    tests: "list[StudentTest]",
    named: "list[StudentTest]",
    campaign: "CampaignTest | None",
    *,
    ended: bool,
) -> None:
    for item in named:
        echo(f"{suspect} was trained on the answers of {_name(item)} from {item.version}: {strength(item.log10_p)}")
    together = campaign is not None and campaign.found and not named
    if together and campaign is not None:
        echo(f"{suspect} was trained on answers of ours, by all clients together: {strength(campaign.log10_p)}")
    damaged = [item for item in tests if item.unreadable]
    for item in damaged[:SHOWN_MAX]:
        echo(f"{_name(item)} from {item.version} could not be tested: {item.unreadable}")
    if len(damaged) > SHOWN_MAX:
        echo(f"and {len(damaged) - SHOWN_MAX} more")
    if not tests:
        echo("no query is kept, so nothing could be tested: answers are marked on routes that say flipped")
    elif all(item.unreadable for item in tests):
        echo("nothing could be tested: restore what is kept of queries, or test on what is left")
    elif not any(item.comparable for item in tests):
        echo(f"{suspect} could not be compared: it does not answer these queries, or not better than by chance")
    elif not named and not together:
        found = smallest(item.log10_p for item in tests)
        where = " in what was answered" if ended else ""
        echo(f"no finding{where}: {suspect} shows no client's marks ({found})")
    if tests:
        rows = [
            (_name(item), item.version, f"{item.queries:,}", _agreement(item), f"{item.log10_p:.1f}")
            for item in tests[:SHOWN_MAX]
        ]
        print_table(("client", "version", "queries", "alike", "log10 p"), rows)
        if len(tests) > SHOWN_MAX:
            echo(f"and {len(tests) - SHOWN_MAX} more, none with a smaller p")


def _name(item: "StudentTest") -> str:
    return f"{item.client.organisation}/{item.client.name}"


def _agreement(item: "StudentTest") -> str:
    if item.unreadable:
        return "damaged"
    return "not asked" if item.traced is None else f"{item.traced.agreement:.1%}"


def _document(item: "StudentTest") -> dict[str, object]:
    traced = item.traced
    return {
        "organisation": item.client.organisation,
        "client": item.client.name,
        "pseudonym": item.pseudonym,
        "version": item.version,
        "queries": item.queries,
        "comparable": item.comparable,
        "unreadable": item.unreadable,
        "noises": traced.noises if traced else 0,
        "agreement": traced.agreement if traced else None,
        "label_log10_p": traced.label_log10_p if traced else 0.0,
        "score_log10_p": traced.score_log10_p if traced else 0.0,
        "log10_p": item.log10_p,
        "named": item.named,
    }
