"""`palladion posture`: what protects the models here, what shows it, and what is open."""

import click

from palladion.cli.output import echo, find_installation, json_option, print_json, progress
from palladion.errors import FINDING

_SIGNS = {
    "on": "on            ",
    "partly": "PARTLY        ",
    "off": "OFF           ",
    "expired": "EXPIRED       ",
    "needs a person": "NEEDS A PERSON",
}


@click.command(epilog="Example: palladion posture --open")
@click.option("--open", "only_open", is_flag=True, help="Show only what is not wholly on.")
@click.option("--strict", is_flag=True, help="Exit with code 1 if anything is off or expired.")
@json_option
@click.pass_context
def posture(ctx: click.Context, only_open: bool, strict: bool, as_json: bool) -> int:
    """Judge every threat and measure: on or off here, what shows it, what remains open (docs/posture.md).

    What is said is read from policy, registry and ledger, each entry proved; what software cannot see, people record
    by palladion incident measure add.
    """
    from palladion.incident.posture.assess import assess, document_of
    from palladion.incident.posture.view import look_over

    installation = find_installation(ctx)
    with progress("index") as bar:
        view = look_over(installation, bar)
    assessed = assess(view)
    document = document_of(view, assessed)
    if as_json:
        print_json(document)
    else:
        for kind, title in (("threat", "Threats"), ("measure", "Measures")):
            echo(title)
            for item in assessed:
                if item.control.kind == kind and not (only_open and item.finding.state == "on"):
                    echo(f"  {_SIGNS[item.finding.state]} {item.control.title}  [{', '.join(item.control.ids)}]")
                    for text in item.finding.evidence:
                        echo(f"      {text}")
                    if item.finding.open:
                        echo(f"      open: {item.finding.open}")
                    if item.finding.close:
                        echo(f"      → {item.finding.close}")
        echo(", ".join(f"{count} {state}" for state, count in document["counts"].items() if count))
        echo(document["claim"])
    failing = document["counts"]["off"] + document["counts"]["expired"]
    return FINDING if strict and failing else 0
