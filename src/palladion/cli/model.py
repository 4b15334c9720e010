"""`palladion model …`: what models and versions there are, what changed, and which one is served."""

from typing import TYPE_CHECKING, Any

import click

from palladion.cli.output import (
    VERSION_NUMBER,
    actor,
    echo,
    find_installation,
    json_option,
    print_fields,
    print_json,
    print_table,
    warn,
)
from palladion.cli.watch_calibration import calibrate_on_retained, print_calibrated
from palladion.clock import timestamp
from palladion.errors import PalladionError

if TYPE_CHECKING:
    from palladion.lifecycle.installation import Installation
    from palladion.registry import Canary, Version, VersionTensor

CANARY_PERCENT_MAX = 50  # palladion.registry.canaries says why; importing that here would slow every command down


@click.group()
def model() -> None:
    """Models and their versions."""


@model.command("list", epilog="Example: palladion model list")
@json_option
@click.pass_context
def list_models(ctx: click.Context, as_json: bool) -> None:
    """List the models, with the version that is served."""
    installation = find_installation(ctx)
    with installation.open_registry() as registry, registry.read() as records:
        found: list[dict[str, Any]] = []
        for item in records.models.all():
            versions = records.versions.all(item.name)
            current = records.promotions.current(item.name)
            found.append(
                {
                    "model": item.name,
                    "format": item.format,
                    "versions": len(versions),
                    "promoted": current.number if current else None,
                    "canary": _canary(records.canaries.current(item.name)),
                    "privacy": _epsilon(installation, current),
                    "newest": timestamp(versions[-1].created) if versions else None,
                    "owner": item.owner,
                }
            )
    if as_json:
        print_json({"models": found})
    elif found:
        tried = ["canary"] if any(item["canary"] for item in found) else []
        tried += ["privacy"] if any(item["privacy"] for item in found) else []
        columns = ("model", "format", "versions", "promoted", *tried, "newest", "owner")
        print_table(columns, [[_cell(item[column]) for column in columns] for item in found])
    else:
        echo("no models yet: palladion protect MODEL --name NAME")


@model.command("show", epilog="Example: palladion model show fraud@2")
@click.argument("version")
@click.option("--tensors", is_flag=True, help="List the tensors, each with its digest.")
@json_option
@click.pass_context
def show(ctx: click.Context, version: str, tensors: bool, as_json: bool) -> None:
    """Show a model with its versions, or one VERSION such as fraud@2."""
    from palladion.lifecycle.open import parse_version
    from palladion.lifecycle.revoke import read_revocations, version_reason

    name, number = parse_version(version)
    installation = find_installation(ctx)
    revoked = read_revocations(installation)
    with installation.open_registry() as registry, registry.read() as records:
        model_row = records.models.get(name)
        versions = records.versions.all(name) if number is None else [records.versions.get(name, number)]
        current, canary = records.promotions.current(name), records.canaries.current(name)
        listed = records.versions.tensors(name, versions[-1].number) if versions else []
    documents = [
        {
            **_document(item, promoted=current is not None and item.number == current.number),
            "privacy": _privacy(installation, item),
            "canary_percent": canary.percent if canary is not None and canary.number == item.number else None,
            "revoked": version_reason(revoked, name, item.number),
        }
        for item in versions
    ]
    if as_json:
        extra = {"tensors": [_tensor(item) for item in listed]} if tensors else {}
        print_json({"model": name, "owner": model_row.owner, "versions": documents, **extra})
        return
    echo(f"{name}, owned by {model_row.owner}")
    for document in documents:
        served = ", promoted" if document["promoted"] else ""
        if document["canary_percent"]:
            served = f", served to {document['canary_percent']} % of the clients"
        echo(f" version {document['version']}{served}")
        shown = (
            "created",
            "format",
            "content",
            "graph",
            "parent",
            "publisher",
            "served",
            "original",
            "note",
            "revoked",
        )
        lines = [(key, document[key] or None) for key in shown]
        print_fields([*lines, ("privacy", _stated(document["privacy"]))])
    if tensors:
        rows = [(t.name, t.dtype, "×".join(map(str, t.shape)) or "scalar", t.digest) for t in listed]
        print_table(("tensor", "type", "shape", "sha-256"), rows)


@model.command("diff", epilog="Example: palladion model diff fraud 1 2")
@click.argument("name")
@click.argument("old", type=VERSION_NUMBER)
@click.argument("new", type=VERSION_NUMBER)
@json_option
@click.pass_context
def diff(ctx: click.Context, name: str, old: int, new: int, as_json: bool) -> None:
    """Say which tensors changed from version OLD of a model to version NEW."""
    with find_installation(ctx).open_registry() as registry, registry.read() as records:
        found = records.versions.diff(name, old, new)
    if as_json:
        print_json(
            {
                "model": name,
                "old": old,
                "new": new,
                "graph_changed": found.graph_changed,
                "changed": [{"old": _tensor(before), "new": _tensor(after)} for before, after in found.changed],
                "added": [_tensor(item) for item in found.added],
                "removed": [_tensor(item) for item in found.removed],
                "same": len(found.same),
            }
        )
        return
    graph = "changed" if found.graph_changed else "the same"
    echo(f"{name}: version {old} → {new}: graph {graph}, {len(found.same)} tensors the same")
    rows = [("changed", after, _shape_change(before, after)) for before, after in found.changed]
    rows += [("added", item, _shape(item)) for item in found.added]
    rows += [("removed", item, _shape(item)) for item in found.removed]
    if rows:
        print_table(("", "tensor", "type and shape"), [(what, item.name, shape) for what, item, shape in rows])


def _percent(ctx: click.Context, parameter: click.Parameter, text: str | None) -> int | None:
    if text is None:
        return None
    digits = text.removesuffix("%")
    if not digits.isascii() or not digits.isdecimal() or len(digits) > 2 or not 1 <= int(digits) <= CANARY_PERCENT_MAX:
        raise click.BadParameter(f"{text!r} is not a share of 1% to {CANARY_PERCENT_MAX}%", ctx, parameter)
    return int(digits)


@model.command("promote", epilog="Example: palladion model promote fraud@2 --canary 5%")
@click.argument("version")
@click.argument("number", type=VERSION_NUMBER, required=False)
@click.option(
    "--canary", "percent", callback=_percent, metavar="PERCENT", help="Serve it to a share of clients, 1..50%."
)
@click.option(
    "--calibrate-retained",
    is_flag=True,
    help="Calibrate it first, on what is retained of clients' queries to the version that is served.",
)
@click.option("--uncalibrated", is_flag=True, help="Serve it although nobody is watched on it then.")
@json_option
@click.pass_context
def promote(
    ctx: click.Context,
    version: str,
    number: int | None,
    percent: int | None,
    calibrate_retained: bool,
    uncalibrated: bool,
    as_json: bool,
) -> None:
    """Serve VERSION, such as fraud@2 (or fraud 2), from now on.

    With --canary, to a share of the clients alone, each of whom stays with it; `palladion model promote` without makes
    it full, `palladion model rollback` ends it, and the gate ends it by itself where it fails more often. Where the
    version that is served is calibrated and this one is not, it is calibrated first, as by --calibrate-retained.
    """
    from palladion.lifecycle.canary import begin_canary
    from palladion.lifecycle.promote import loses_calibration
    from palladion.lifecycle.promote import promote as promote_version

    name, number = _named(ctx, version, number)
    if uncalibrated and calibrate_retained:
        raise click.UsageError("--uncalibrated and --calibrate-retained contradict each other", ctx)
    installation = find_installation(ctx)
    uncovered = loses_calibration(installation, name, number)
    if calibrate_retained or (uncovered and not uncalibrated):
        document = _calibrated(installation, f"{name}@{number}", asked_for=calibrate_retained)
        if not as_json:
            print_calibrated(document, installation.policy.watch)
    if percent is not None:
        begun, receipt = begin_canary(
            installation, name, number, percent=percent, uncalibrated=uncalibrated, actor=actor()
        )
        if as_json:
            print_json({"model": name, "canary": _canary(begun), "receipt": str(receipt)})
        else:
            echo(f"{name} version {number} is served to {percent} % of the clients (ledger {receipt})")
        return
    event, receipt = promote_version(installation, name, number, actor=actor())
    _print_event(as_json, name, event.number, str(receipt), f"{name} version {event.number} is promoted")
    if uncovered and uncalibrated:
        warn(f"{name}@{number} is not calibrated, the version before was: nobody is watched on it until it is")


@model.command("rollback", epilog="Example: palladion model rollback fraud")
@click.argument("name")
@json_option
@click.pass_context
def rollback(ctx: click.Context, name: str, as_json: bool) -> None:
    """Serve again the version that was promoted before; where a share of clients is served another one, end that."""
    from palladion.lifecycle.canary import current_canary, end_canary
    from palladion.lifecycle.promote import roll_back

    installation = find_installation(ctx)
    if current_canary(installation, name) is not None:
        ended, standing, receipt = end_canary(installation, name, actor=actor())
        if as_json:
            print_json({"model": name, "promoted": standing, "canary": None, "receipt": str(receipt)})
        else:
            echo(f"{name} version {ended.number} is no canary any more, version {standing} answers (ledger {receipt})")
        return
    event, receipt = roll_back(installation, name, actor=actor())
    _print_event(as_json, name, event.number, str(receipt), f"{name} is rolled back to version {event.number}")


def _calibrated(installation: "Installation", version: str, *, asked_for: bool) -> dict[str, Any]:
    """A calibration on retained queries; unless `asked_for`, ConflictError says what else there is where that fails."""
    from palladion.errors import ConflictError, NotFoundError, PalladionError

    try:
        return calibrate_on_retained(installation, version)
    except PalladionError as error:
        if asked_for or isinstance(error, NotFoundError):
            raise
        raise ConflictError(
            f"{version} is not calibrated, and the version that is served is: nobody would be watched on it. "
            f"It cannot be calibrated on what is retained: {error.message}",
            f"palladion watch calibrate {version} --validation FILE",
            "or say --uncalibrated",
        ) from None


def _named(ctx: click.Context, version: str, number: int | None) -> tuple[str, int]:
    from palladion.lifecycle.open import parse_version

    name, stated = parse_version(version)
    found = [item for item in (number, stated) if item is not None]
    if len(found) != 1:
        raise click.UsageError(f"name one version, for example {name}@2", ctx)
    return name, found[0]


def _canary(canary: "Canary | None") -> dict[str, Any] | None:
    return None if canary is None else {"version": canary.number, "percent": canary.percent}


def _print_event(as_json: bool, name: str, number: int, receipt: str, sentence: str) -> None:
    if as_json:
        print_json({"model": name, "promoted": number, "receipt": receipt})
    else:
        echo(f"{sentence} (ledger {receipt})")


def _cell(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if "error" in value:
        return "does not verify"
    if "epsilon" in value:
        return f"ε {value['epsilon']}, δ {value['delta']}"
    return f"{value['version']}, {value['percent']} %"


def _privacy(installation: "Installation", version: "Version") -> dict[str, Any] | None:
    """What is stated of a version's training, once its signature holds; it is shown as a claim."""
    if version.privacy is None:
        return None
    import msgspec

    from palladion.lifecycle.privacy import verify_privacy

    stated = verify_privacy(version, installation.publishers())
    return None if stated is None else {**msgspec.to_builtins(stated.statement), "stated_by": stated.by}


def _epsilon(installation: "Installation", version: "Version | None") -> dict[str, Any] | None:
    try:
        found = None if version is None else _privacy(installation, version)
    except PalladionError as error:
        # one forged statement must not hide the other models; `model show` ends with it
        return {"error": error.message}
    return None if found is None else {key: found[key] for key in ("epsilon", "delta", "stated_by")}


def _stated(found: dict[str, Any] | None) -> str | None:
    if found is None:
        return None
    said = f"ε = {found['epsilon']} at δ = {found['delta']} for each example"
    return f"{said}, stated by {found['stated_by']} (not proved)"


def _document(version: "Version", *, promoted: bool) -> dict[str, Any]:
    return {
        "version": version.number,
        "promoted": promoted,
        "created": timestamp(version.created),
        "format": version.format,
        "content": version.content_digest,
        "graph": version.graph_digest,
        "parent": version.parent,
        "publisher": version.publisher,
        "served": version.served.path,
        "original": version.original.path if version.original else None,
        "marks": list(version.marks),
        "note": version.note,
    }


def _tensor(item: "VersionTensor") -> dict[str, Any]:
    return {"name": item.name, "dtype": item.dtype, "shape": list(item.shape), "digest": item.digest}


def _shape(item: "VersionTensor") -> str:
    return f"{item.dtype} {'×'.join(map(str, item.shape)) or 'scalar'}"


def _shape_change(before: "VersionTensor", after: "VersionTensor") -> str:
    return _shape(after) if _shape(before) == _shape(after) else f"{_shape(before)} → {_shape(after)}"
