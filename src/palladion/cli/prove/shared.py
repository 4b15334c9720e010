"""What the questions of `palladion prove` share: their options, the strength of evidence in words, exit codes."""

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from palladion.cli.output import (
    actor,
    find_installation,
    identity_option,
    json_option,
    owner_identities,
    passphrase_option,
    progress,
    stages,
)
from palladion.errors import FINDING, INCONCLUSIVE, UnsupportedFormatError

if TYPE_CHECKING:
    from palladion.lifecycle.prove import Tested
    from palladion.model.model import Model

PLAIN_LOG10_P = -3.0  # p-values down to here are written without a power of ten
BLIND_SHOWN_MAX = 10  # versions

_Command = TypeVar("_Command", bound=Callable[..., Any])


def options(command: _Command, *, suspect: Any = None) -> _Command:
    """What questions about a model take; `suspect` is what the argument can be, a file or folder unless given."""
    decorators: list[Callable[[_Command], _Command]] = [
        click.argument("suspect", type=suspect or click.Path(exists=True, path_type=Path)),
        click.option(
            "--reference",
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


def outcomes_of(
    ctx: click.Context,
    suspect: Path,
    versions: tuple[str, ...],
    passphrase_file: Path | None,
    identity_file: Path | None,
    *,
    copies: bool,
    blind: bool = False,
) -> "list[Tested]":
    """Test SUSPECT, with the owner root that was named."""
    from palladion.lifecycle.prove import prove as test

    installation = find_installation(ctx)
    model = _read(suspect, bytes_max=installation.policy.scan.file_bytes_max)
    owner = installation.open_owner_root(owner_identities(passphrase_file, identity_file))
    with progress(f"test {suspect.name}") as bar:
        return test(
            installation, owner, model, versions, copies=copies, blind=blind, actor=actor(), progress=stages(bar)
        )


def _read(suspect: Path, *, bytes_max: int) -> "Model":
    from palladion.model.read import read_weights

    try:
        return read_weights(suspect, bytes_max=bytes_max)
    except UnsupportedFormatError as error:
        if error.found != "sealed":
            raise
        raise UnsupportedFormatError(
            f"{suspect} is a sealed file: what it holds can be tested once it is open",
            f"palladion inspect {suspect} says what it claims to be, and for whom",
            f"palladion unseal {suspect} --out PATH opens it for whoever it was sealed to",
            found=error.found,
        ) from None


def version_name(item: "Tested") -> str:
    """A version as people say it."""
    return f"{item.version.model} version {item.version.number}"


def strength(log10_p: float) -> str:
    """The p-value for people; beyond the size of the key, more digits would be no more evidence."""
    from palladion.lifecycle.prove import KEY_LOG10_P

    if log10_p < KEY_LOG10_P:
        return f"p < 1e{KEY_LOG10_P:.0f} (log10 p {log10_p:.0f}; more than the key's 256 bits proves nothing more)"
    if log10_p > PLAIN_LOG10_P:
        return smallest([log10_p])
    return f"p < 1e{math.ceil(log10_p)}"


def smallest(log10_ps: Iterable[float]) -> str:
    """The strongest evidence where it is none: rounded up, so that no p-value is said to be smaller than it is."""
    log10_p = min(log10_ps, default=0.0)
    return f"smallest p {10**log10_p:.2g}" if log10_p > PLAIN_LOG10_P else f"smallest p < 1e{math.ceil(log10_p)}"


def nothing_found(suspect: Path, outcomes: "list[Tested]", what: str, log10_ps: list[float]) -> str:
    """What to say where nothing was found."""
    if not outcomes:
        return f"there is no marked version to test {suspect} against"
    if not any(item.comparable for item in outcomes):
        return f"{suspect} could not be compared: it has no tensor of the size of one of ours"
    if all(item.too_small for item in outcomes):
        said = f"{suspect} could not be tested without the original: our models are too small for that"
    else:
        said = f"no finding: {suspect} does not carry {what} ({smallest(log10_ps)})"
    same = next((item for item in outcomes if item.is_original), None)
    if same is not None:
        said += f"; but number for number it is the unmarked original of {version_name(same)}, which carries none"
    return said


def blind_limits(outcomes: "list[Tested]") -> list[str]:
    """What a test without the original cannot find, in sentences; none where there was the original."""
    tested = [item for item in outcomes if item.blind_log10_p is not None and item.comparable]
    if not tested:
        return []
    weak = ", too little for a verdict"
    shown = [
        f"{item.blind_log10_p:.1f} of {version_name(item)}{weak if item.too_small else ''}"
        for item in tested[:BLIND_SHOWN_MAX]
    ]
    if len(tested) > BLIND_SHOWN_MAX:
        shown.append(f"and of {len(tested) - BLIND_SHOWN_MAX} more versions")
    return [
        "without the original, a copy that was permuted or rotated is not found, nor one with little of the mark left",
        f"in an exact copy, log10 p is about {'; '.join(shown)}",
        "to find more, test without --blind where the originals can be opened",
    ]


def exit_code(outcomes: "list[Tested]", found: bool) -> int:
    """0 no finding, 1 found, 3 nothing could be compared."""
    if found:
        return FINDING
    return 0 if any(item.comparable and not item.too_small for item in outcomes) else INCONCLUSIVE


def document_of(item: "Tested") -> dict[str, object]:
    """An outcome as JSON."""
    return {
        "model": item.version.model,
        "version": item.version.number,
        "comparable": item.comparable,
        "log10_p": item.log10_p,
        "ours": item.ours,
        "payload_errors": item.ownership.payload_errors,
        "is_original": item.is_original,
        "blind": item.blind_log10_p is not None,
        "blind_log10_p": item.blind_log10_p,
        "undone": list(item.needed),
        "missing": list(item.ownership.missing),
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
