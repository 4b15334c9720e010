"""`palladion prove …`: is a model ours, and whose copy is it?"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from palladion.cli.output import (
    actor,
    echo,
    find_installation,
    identity_option,
    json_option,
    owner_identities,
    passphrase_option,
    print_json,
    print_table,
)
from palladion.errors import FINDING, INCONCLUSIVE

if TYPE_CHECKING:
    from palladion.lifecycle.prove import Tested

PLAIN_LOG10_P = -3.0  # p-values down to here are written without a power of ten

_Command = TypeVar("_Command", bound=Callable[..., Any])


@click.group()
def prove() -> None:
    """Is a model ours, and whose copy is it? Tested against the sealed originals, with the owner's keys.

    Exit codes: 0 no finding, 1 the mark or a fingerprint was found, 3 nothing could be compared.
    """


def options(command: _Command) -> _Command:
    """What both questions take."""
    decorators: list[Callable[[_Command], _Command]] = [
        click.argument("suspect", type=click.Path(exists=True, dir_okay=False, path_type=Path)),
        click.option(
            "--version",
            "versions",
            multiple=True,
            metavar="VERSION",
            help="Test against this version only, such as fraud@2; may be repeated. Without it, all marked ones.",
        ),
        passphrase_option,
        identity_option,
        json_option,
        click.pass_context,  # type: ignore[list-item]
    ]
    for decorate in reversed(decorators):
        command = decorate(command)
    return command


@prove.command("mine", epilog="Example: palladion prove mine downloaded.onnx")
@options
def mine(
    ctx: click.Context,
    suspect: Path,
    versions: tuple[str, ...],
    passphrase_file: Path | None,
    identity_file: Path | None,
    as_json: bool,
) -> int:
    """Is SUSPECT (ONNX or safetensors) one of our models, wholly or in part?

    The p-value bounds the chance that a model which has nothing to do with our key looks like this. It stays valid
    after quantisation, pruning or fine-tuning, and pays for every version that was tested.
    """
    outcomes = _outcomes(ctx, suspect, versions, passphrase_file, identity_file, copies=False)
    if as_json:
        print_json({"finding": any(item.ours for item in outcomes), "versions": [_document(item) for item in outcomes]})
        return _exit_code(outcomes, any(item.ours for item in outcomes))
    found = [item for item in outcomes if item.ours]
    for item in found:
        echo(f"{suspect} carries our mark: {_name(item)}, {_strength(item.log10_p)}")
        rows = [
            (part.tensor, part.suspect, f"{part.weights:,}", f"{part.correlation:.3f}", f"{part.log10_p:.0f}")
            for part in item.ownership.tensors
        ]
        print_table(("tensor", "in the suspect", "weights", "alike", "log10 p alone"), rows)
    if not found:
        echo(_nothing(suspect, outcomes, "our mark", [item.log10_p for item in outcomes]))
    return _exit_code(outcomes, bool(found))


@prove.command("copy", epilog="Example: palladion prove copy leaked.onnx --version fraud@2")
@options
def copy(
    ctx: click.Context,
    suspect: Path,
    versions: tuple[str, ...],
    passphrase_file: Path | None,
    identity_file: Path | None,
    as_json: bool,
) -> int:
    """Whose copy is SUSPECT? Names the recipients whose fingerprint it carries, several for a mixture, or nobody.

    The p-value bounds the chance that an innocent recipient is named; it pays for every recipient and version tested.
    """
    outcomes = _outcomes(ctx, suspect, versions, passphrase_file, identity_file, copies=True)
    accused = [(item, who) for item in outcomes for who in item.accused]
    if as_json:
        print_json({"finding": bool(accused), "versions": [_document(item) for item in outcomes]})
        return _exit_code(outcomes, bool(accused))
    for item, who in accused:
        echo(f"{suspect} is {who.recipient}'s copy of {_name(item)}: {_strength(who.log10_p)}")
    if not accused:
        log10_ps = [who.log10_p for item in outcomes for who in item.accusations]
        echo(_nothing(suspect, outcomes, "a recipient's fingerprint", log10_ps))
        for item in outcomes:
            if item.ours:
                echo(f"but it is ours: it carries the mark of {_name(item)}, {_strength(item.log10_p)}")
    echo(f"versions tested: {len(outcomes)}, recipients: {sum(item.recipients for item in outcomes)}")
    return _exit_code(outcomes, bool(accused))


def _outcomes(
    ctx: click.Context,
    suspect: Path,
    versions: tuple[str, ...],
    passphrase_file: Path | None,
    identity_file: Path | None,
    *,
    copies: bool,
) -> "list[Tested]":
    from palladion.lifecycle.prove import prove as test
    from palladion.model.read import read_file

    installation = find_installation(ctx)
    model = read_file(suspect, bytes_max=installation.policy.scan.file_bytes_max)
    owner = installation.open_owner_root(owner_identities(passphrase_file, identity_file))
    return test(installation, owner, model, versions, copies=copies, actor=actor())


def _name(item: "Tested") -> str:
    return f"{item.version.model} version {item.version.number}"


def _strength(log10_p: float) -> str:
    """The p-value for people; beyond the size of the key, more digits would be no more evidence."""
    from palladion.lifecycle.prove import KEY_LOG10_P

    if log10_p < KEY_LOG10_P:
        return f"p < 1e{KEY_LOG10_P:.0f} (log10 p {log10_p:.0f}; more than the key's 256 bits proves nothing more)"
    return f"p < 1e{math.ceil(log10_p)}"


def _nothing(suspect: Path, outcomes: "list[Tested]", what: str, log10_ps: list[float]) -> str:
    if not outcomes:
        return f"there is no marked version to test {suspect} against"
    if not any(item.comparable for item in outcomes):
        return f"{suspect} could not be compared: it has no tensor of the size of one of ours"
    smallest = min(log10_ps, default=0.0)
    p = f"{10**smallest:.2g}" if smallest > PLAIN_LOG10_P else f"1e{smallest:.0f}"
    return f"no finding: {suspect} does not carry {what} (smallest p {p})"


def _exit_code(outcomes: "list[Tested]", found: bool) -> int:
    if found:
        return FINDING
    return 0 if any(item.comparable for item in outcomes) else INCONCLUSIVE


def _document(item: "Tested") -> dict[str, object]:
    return {
        "model": item.version.model,
        "version": item.version.number,
        "comparable": item.comparable,
        "log10_p": item.log10_p,
        "ours": item.ours,
        "tensors": [
            {
                "tensor": part.tensor,
                "suspect": part.suspect,
                "weights": part.weights,
                "correlation": part.correlation,
                "statistic": part.statistic,
                "log10_p": part.log10_p,
            }
            for part in item.ownership.tensors
        ],
        "recipients": [
            {
                "recipient": who.recipient,
                "log10_p": who.log10_p,
                "statistic": who.statistic,
                "accused": who in item.accused,
            }
            for who in item.accusations
        ],
    }
