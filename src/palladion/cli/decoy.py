"""`palladion decoy …`: keys, queries and files that nobody honest uses, and who did."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from palladion.cli.decoy_plant import check, plant
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

if TYPE_CHECKING:
    from palladion.ledger.writer import Receipt
    from palladion.registry import Decoy

COLUMNS = ("id", "kind", "label", "touches", "last_touched", "retired")

_label = click.option(
    "--label", required=True, metavar="TEXT", help="Where it is planted; for you, never in the ledger."
)


def _known_environment(ctx: click.Context, parameter: click.Parameter, text: str) -> str:
    from palladion.access.identity import new_api_key

    try:
        new_api_key(text)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, parameter) from None
    return text


_file = click.Path(dir_okay=False, exists=True, path_type=Path)


@click.group()
def decoy() -> None:
    """Decoys: keys, queries and files that nobody honest uses. Whoever does has been where they are planted."""


@decoy.group("add")
def add() -> None:
    """Make a decoy, to be planted where a thief would find it."""


@add.command("key", epilog="Example: palladion decoy add key --label 'wiki page of team X'")
@_label
@click.option("--organisation", metavar="NAME", help="Whose place that is, where it is not yours.")
@click.option(
    "--environment",
    default="live",
    show_default=True,
    callback=_known_environment,
    help="A word in the key itself, as in your clients' keys.",
)
@json_option
@click.pass_context
def add_key(ctx: click.Context, label: str, organisation: str | None, environment: str, as_json: bool) -> None:
    """Make an API key that looks like any other and is nobody's. Shows it once.

    Whoever sends it gets the answer that an unknown key gets, and a case is opened.
    """
    from palladion.lifecycle.decoys import add_decoy_key

    made, key, receipt = add_decoy_key(
        find_installation(ctx), label=label, organisation=organisation, environment=environment, actor=actor()
    )
    if as_json:
        print_json({**_document(made), "key": key.text, "receipt": str(receipt)})
        return
    echo(f"added decoy {made.id}")
    print_fields([("key", key.text), ("label", label), ("ledger", receipt)])
    warn("the key is shown this once and cannot be shown again")


@add.command("input", epilog="Example: palladion decoy add input fraud --file planted.npy --label 'copy of May'")
@click.argument("model")
@click.argument("rows", nargs=-1, metavar="[ROW]...")
@_label
@click.option("--file", "path", type=_file, metavar="FILE", help="Read the rows from an .npy, .npz or text file.")
@click.option(
    "--tolerance",
    type=float,
    default=0.001,
    show_default=True,
    help="By how much a number may be off: a share of the largest in its place, from 0.000001 to 0.01.",
)
@click.option(
    "--one-unit", is_flag=True, help="Take the share of the largest number anywhere, as pixels have one unit."
)
@json_option
@click.pass_context
def add_input(
    ctx: click.Context,
    model: str,
    rows: tuple[str, ...],
    label: str,
    path: Path | None,
    tolerance: float,
    one_unit: bool,
    as_json: bool,
) -> None:
    """Make a decoy of rows that exist nowhere but in a data set that you plant. They are kept sealed.

    A ROW is a list of numbers such as 0.5,-1,2,0.25, one for each input of MODEL; put -- before one that begins with
    a minus. A file has many: an array (rows, ...), or a row a line.
    """
    if bool(rows) == (path is not None):
        raise click.UsageError("either ROWs are needed, or --file", ctx)
    from palladion.lifecycle.decoys import add_decoy_rows, parse_decoy_rows, read_decoy_rows

    planted = parse_decoy_rows(rows) if path is None else read_decoy_rows(path)
    made, receipt = add_decoy_rows(
        find_installation(ctx),
        model,
        planted,
        label=label,
        tolerance=tolerance,
        one_unit=one_unit,
        actor=actor(),
    )
    _print_added(made, receipt, as_json=as_json)


@add.command("prompt", epilog="Example: palladion decoy add prompt chat --file planted.txt --label 'prompts of May'")
@click.argument("model")
@click.argument("texts", nargs=-1, metavar="[TEXT]...")
@_label
@click.option("--file", "path", type=_file, metavar="FILE", help="Read the prompts from a file, one a line.")
@json_option
@click.pass_context
def add_prompt(
    ctx: click.Context, model: str, texts: tuple[str, ...], label: str, path: Path | None, as_json: bool
) -> None:
    """Make a decoy of prompts that exist nowhere but in a data set that you plant. Keyed digests of them are kept.

    A TEXT counts as asked however it is spaced, and in whatever case.
    """
    if bool(texts) == (path is not None):
        raise click.UsageError("either TEXTs are needed, or --file", ctx)
    from palladion.lifecycle.decoys import add_decoy_prompts, read_decoy_prompts

    planted = list(texts) if path is None else read_decoy_prompts(path)
    made, receipt = add_decoy_prompts(find_installation(ctx), model, planted, label=label, actor=actor())
    _print_added(made, receipt, as_json=as_json)


@decoy.command("list", epilog="Example: palladion decoy list")
@click.option("--all", "everything", is_flag=True, help="Retired ones too.")
@json_option
@click.pass_context
def list_decoys(ctx: click.Context, everything: bool, as_json: bool) -> None:
    """List the decoys, and how often each was touched, oldest first."""
    with find_installation(ctx).open_registry() as registry, registry.read() as records:
        found = [_document(item) for item in records.decoys.all(retired=everything)]
    if as_json:
        print_json({"decoys": found})
    elif found:
        print_table(COLUMNS, [["" if item[name] is None else item[name] for name in COLUMNS] for item in found])
    else:
        echo("no decoys: palladion decoy add key --label WHERE")


@decoy.command("show", epilog="Example: palladion decoy show 3f2a")
@click.argument("id")
@json_option
@click.pass_context
def show(ctx: click.Context, id: str, as_json: bool) -> None:  # noqa: A002 (click names arguments so)
    """Show a decoy, named by its id or the beginning of it. What it is made of cannot be shown again.

    Of a planted file it says where it lies.
    """
    from palladion.lifecycle.decoy_files import places_of

    installation = find_installation(ctx)
    with installation.open_registry() as registry, registry.read() as records:
        found = records.decoys.get(id)
    document = _document(found)
    if places := places_of(installation, found):
        document["places"] = places
    if as_json:
        print_json(document)
        return
    echo(f"{document.pop('id')}: {document.pop('label')}")
    places = document.pop("places", [])
    fields = [(name.replace("_", " "), value) for name, value in document.items()]
    print_fields([*fields, *(("place", place) for place in places)])


@decoy.command("retire", epilog="Example: palladion decoy retire 3f2a")
@click.argument("id")
@json_option
@click.pass_context
def retire(ctx: click.Context, id: str, as_json: bool) -> None:  # noqa: A002
    """Let a decoy count no more, for good. Its touches and cases stay."""
    from palladion.lifecycle.decoys import retire_decoy

    retired, receipt = retire_decoy(find_installation(ctx), id, actor=actor())
    if as_json:
        print_json({**_document(retired), "receipt": str(receipt)})
    else:
        echo(f"retired decoy {retired.id} (ledger {receipt})")


def _print_added(made: "Decoy", receipt: "Receipt", *, as_json: bool) -> None:
    if as_json:
        print_json({**_document(made), "receipt": str(receipt)})
        return
    echo(f"added decoy {made.id}")
    print_fields([("model", made.model), (made.kind, made.count), ("label", made.label), ("ledger", receipt)])


def _document(item: "Decoy") -> dict[str, Any]:
    return {
        "id": item.id,
        "kind": item.kind,
        "label": item.label,
        "organisation": item.organisation,
        "model": item.model,
        "prefix": item.prefix,
        "count": item.count,
        "added": timestamp(item.created),
        "by": item.actor,
        "touches": item.touches,
        "last_touched": timestamp(item.touched_at) if item.touched_at else None,
        "incident": item.incident,
        "retired": timestamp(item.retired_at) if item.retired_at else None,
    }


decoy.add_command(plant)
decoy.add_command(check)
