"""`palladion protect`: a plaintext model in, a sealed and recorded version out."""

import shlex
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from palladion.cli.output import (
    actor,
    echo,
    find_installation,
    json_option,
    owner_identities,
    passphrase_option,
    print_fields,
    print_json,
    progress,
    size_text,
    stages,
    warn,
)
from palladion.errors import FINDING

if TYPE_CHECKING:
    from palladion.lifecycle.marking import Guard, OwnershipMark
    from palladion.lifecycle.protect import Prepared, Protected
    from palladion.mark.triggers.planting import Planted
    from palladion.model.model import Model
    from palladion.private.dp.statement import PrivacyStatement
    from palladion.registry import Version

# A thousand times below the threshold of a verdict: what is predicted is a mean, and each key is another draw.
LOG10_P_WEAK = -12.0
BASE_HELP = "The model that an adapter was made for: a version such as llama@2, a sealed file, or a content digest."


rows_option = click.option(
    "--rows",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Rows of your own (.npy or .npz) that the classifier did not learn from: it is taught secret inputs by which "
    "it is recognised through an API, and the rows show what that costs.",
)


check_option = click.option(
    "--check",
    metavar="COMMAND",
    help="Halve the mark while this program, which gets the path of the marked model (in plaintext, as long as it "
    "runs), exits with 1; 0 says that the model is good enough. 'probes' compares outputs of an ONNX model instead.",
)


privacy_option = click.option(
    "--privacy",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="What is stated of the training's privacy (JSON), as private training writes it: signed into the version.",
)


@click.command(epilog="Example: palladion protect model.onnx --name fraud --note 'retrained in March'")
@click.argument("model", type=click.Path(exists=True, path_type=Path))
@click.option("--name", required=True, help="The model's name; a name that exists gets its next version.")
@click.option("--note", default="", help="A sentence that stays with the version.")
@click.option("--base", default="", metavar="MODEL", help=BASE_HELP)
@rows_option
@check_option
@privacy_option
@click.option("--delete-plaintext", is_flag=True, help="Remove the plaintext files once the sealed ones have verified.")
@passphrase_option
@json_option
@click.pass_context
def protect(
    ctx: click.Context,
    model: Path,
    name: str,
    note: str,
    base: str,
    rows: Path | None,
    check: str | None,
    privacy: Path | None,
    delete_plaintext: bool,
    passphrase_file: Path | None,
    as_json: bool,
) -> int:
    """Scan MODEL, seal it, sign it, and record it as the next version of NAME.

    Two sealed files come out: the served one, marked, for this host's gate; the original, for owner and escrow only.
    MODEL is an ONNX, safetensors or GGUF file, a Hugging Face folder, or the folder of a LoRA adapter. Exit code 1 if
    the version is protected and a plaintext file that was to go has stayed.
    """
    from palladion.lifecycle import protect as life
    from palladion.lifecycle.doctor import check_tracing
    from palladion.lifecycle.egress import useless
    from palladion.lifecycle.seal import find_base

    installation = find_installation(ctx)
    warn_of_few_rows(rows)
    stated = read_privacy(privacy)
    base_digest = find_base(installation, base)
    owner = installation.open_owner_root(owner_identities(passphrase_file))
    with progress("protect") as bar:
        made = life.protect(
            installation,
            owner,
            model,
            name,
            actor=actor(),
            note=note,
            base=base_digest,
            guard=guard_of(check),
            rows=rows,
            privacy=stated,
            delete=delete_plaintext,
            announce=announce,
            progress=stages(bar),
        )
    if as_json:
        print_json(_document(made))
    else:
        _print(made)
    if not delete_plaintext:
        warn(f"{model} is still there in plaintext; --delete-plaintext removes it")
    if stated is not None and (rows is not None or check is not None):
        warn("rows of --rows and --check are not covered by what is stated of the training's privacy")
    if made.unservable:
        warn(f"palladion serve cannot run it: {made.unservable}")
    if made.mark is None:
        warn("the model is too small to carry a mark: a copy of it cannot be proved ours, and no leak can be traced")
    said = useless(installation, made.version)
    if said is not None:
        warn(said)
    for found in check_tracing(installation, name):
        if found.status != "ok":
            warn(f"{found.message} ({found.hint})")
    for item in made.stayed:
        warn(f"{item.path} was not deleted: {item.reason}")
    return FINDING if made.stayed else 0


def read_privacy(path: Path | None) -> "PrivacyStatement | None":
    """The statement that `--privacy` names. Raises FormatError, and MissingExtraError where it cannot be recomputed."""
    if path is None:
        return None
    from palladion.errors import MissingExtraError
    from palladion.private.dp.accounting import EXTRA
    from palladion.private.dp.statement import read_statement
    from palladion.private.dp.verify import verify_statement

    stated = read_statement(path)
    if verify_statement(stated).recomputed is None:
        raise MissingExtraError(f"recomputing the ε of {path} needs dp-accounting", EXTRA)
    return stated


def stated_text(statement: "PrivacyStatement", by: str) -> str:
    """A statement as people are shown it: it is a claim."""
    return f"ε = {statement.epsilon} at δ = {statement.delta} for each example, stated by {by} (not proved)"


def _stated(version: "Version") -> str | None:
    if version.privacy is None:
        return None
    from palladion.private.dp.statement import statement_of

    document = version.privacy.document
    return stated_text(statement_of(document["statement"], what="the statement"), str(document["by"]))


def warn_of_few_rows(rows: Path | None) -> None:
    """Say of `--rows` that they are too few to show what triggers cost, and how many are wanted."""
    count = _row_count(rows) if rows is not None else None
    if count is None:
        return
    from palladion.mark.triggers.planting import CHECKED, FLIPPED_MAX, LEARNED_REFERENCES_MAX

    wanted = round(CHECKED / FLIPPED_MAX)
    if count < wanted:
        warn(
            f"{rows} has {count} rows, and at least {wanted} are wanted: a quarter of them shows what the triggers "
            f"cost, and {count // CHECKED} rows cannot tell {FLIPPED_MAX:.0%}; up to {LEARNED_REFERENCES_MAX:,} help"
        )


def _row_count(path: Path) -> int | None:
    """How many rows a `.npy` or `.npz` file has; None where it is no such file, which protecting will say better."""
    import numpy as np

    try:
        loaded = np.load(path, mmap_mode="r", allow_pickle=False)
        first = next(iter(loaded.values())) if isinstance(loaded, np.lib.npyio.NpzFile) else loaded
        return len(first)
    except (OSError, ValueError, TypeError, EOFError, StopIteration, zipfile.BadZipFile):
        return None


def guard_of(check: str | None) -> "Callable[[Model], Guard] | None":
    """What `--check` asks for, of the unmarked model."""
    from palladion.mark.guard import command_guard, cosine_guard

    if check is None:
        return None
    if check == "probes":
        return cosine_guard
    command = shlex.split(check)
    if not command:
        raise click.UsageError("--check is a program, or 'probes', got nothing")
    return lambda _original: command_guard(command)


def announce(prepared: "Prepared") -> None:
    """Say, before anything is sealed, what will not be provable of copies of this model."""
    mark = prepared.mark
    if mark is None:
        return  # the summary says so
    # blind, without the original, most models are too small; but there is an original
    weak = [(name, p) for name, p in mark.predicted.items() if p > LOG10_P_WEAK and name != "blind"]
    if weak:
        found = "; ".join(f"{name}, log10 p about {p:.1f}" for name, p in weak)
        warn(f"the model is so small that a copy may not be provable (a verdict takes log10 p of -9): {found}")


def predictions(mark: "OwnershipMark") -> str:
    """What will be found again in copies: stated before anybody has one."""
    found = "; ".join(f"{p:.0f} ({name})" if p < -20 else f"{p:.1f} ({name})" for name, p in mark.predicted.items())
    return f"{mark.weights:,} weights; a test against the original will find log10 p of about {found}"


def _marked(made: "Protected") -> str:
    return "no: it has no tensor that could carry a mark" if made.mark is None else predictions(made.mark)


def _taught(planted: "Planted | None") -> str | None:
    """What the triggers cost, and how many of them hold."""
    if planted is None:
        return None
    count = planted.commitment.count
    return f"{count}: {planted.held:.0%} hold; {planted.flipped:.1%} of your rows are answered otherwise than before"


def _document(made: "Protected") -> dict[str, object]:
    version = made.version
    return {
        "model": version.model,
        "version": version.number,
        "parent": version.parent,
        "format": version.format,
        "content": version.content_digest,
        "graph": version.graph_digest,
        "tensors": made.tensors,
        "parameters": made.parameters,
        "mark": None if made.mark is None else {"weights": made.mark.weights, "log10_p": dict(made.mark.predicted)},
        "triggers": None
        if made.planted is None
        else {
            "count": made.planted.commitment.count,
            "held": made.planted.held,
            "rows_changed": made.planted.flipped,
        },
        "served": str(made.served),
        "original": str(made.original),
        "publisher": version.publisher,
        "receipt": str(made.receipt),
        "promoted": made.promoted,
        **({"privacy": version.privacy.document} if version.privacy else {}),
        "deleted": [str(path) for path in made.deleted],
        "stayed": [{"file": str(item.path), "reason": item.reason} for item in made.stayed],
    }


def _print(made: "Protected") -> None:
    version = made.version
    echo(f"protected {version.model} version {version.number}")
    print_fields(
        [
            ("scanned", f"{version.format}, {made.tensors} tensors, {made.parameters:,} numbers, no findings"),
            ("marked", _marked(made)),
            ("triggers", _taught(made.planted)),
            ("privacy", _stated(version)),
            ("content", version.content_digest),
            ("served", f"{made.served} ({size_text(made.served.stat().st_size)}), for this host's gate"),
            ("original", f"{made.original}, for owner{' and escrow' if made.escrowed else ' only'}"),
            ("signed by", version.publisher),
            ("ledger", f"entry {made.receipt.index}"),
            ("promoted", "yes, as the first version" if made.promoted else "no: palladion model promote"),
            ("deleted", ", ".join(map(str, made.deleted)) or None),
        ]
    )
