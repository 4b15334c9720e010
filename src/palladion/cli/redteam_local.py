"""`palladion redteam run MODEL`: the version that is sealed here, opened, and what is needed to attack it."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from palladion.cli.output import owner_identities
from palladion.cli.redteam_remote import Data
from palladion.cli.redteam_removal import usefulness_of
from palladion.cli.redteam_text import Text, local_folder, local_text
from palladion.errors import ConflictError, FormatError

if TYPE_CHECKING:
    from palladion.lifecycle.installation import Installation
    from palladion.model.model import Model
    from palladion.policy import RoutePolicy
    from palladion.redteam.audit.exhibit import Exhibit
    from palladion.redteam.audit.stage import Stage
    from palladion.redteam.audit.subject import Subject
    from palladion.registry import Version


@dataclass(frozen=True)
class Local:
    """What the options say about a model here: files of rows, a folder to scan, and what unlocks the owner's keys."""

    data: Data
    beside: Path | None
    passphrase_file: Path | None
    identity_file: Path | None

    @classmethod
    def taken(cls, options: dict[str, Any], data: Data) -> "Local":
        """Its options, taken out of those that a command was given."""
        return cls(data, *(options.pop(name) for name in ("beside", "passphrase_file", "identity_file")))

    @property
    def owned(self) -> bool:
        """Whether the owner's keys were named."""
        return self.passphrase_file is not None or self.identity_file is not None

    def require_remote(self) -> None:
        """Raise UsageError for what does not go with an address."""
        given = {"files": self.beside, "passphrase-file": self.passphrase_file, "identity": self.identity_file}
        for name, value in given.items():
            if value is not None:
                raise click.UsageError(f"--{name} is for a model of this installation")


@contextmanager
def local_subject_of(
    installation: "Installation", name: str, local: Local, text: Text, *, seed: int
) -> "Iterator[tuple[Version, Subject, dict[str, Stage]]]":
    """The version and the subject that it is, and the stages that were given what they need, by name."""
    from palladion.lifecycle.open import open_version
    from palladion.policy import RoutePolicy
    from palladion.redteam.audit.exhibit import exhibit_of
    from palladion.redteam.audit.supply_chain import with_folder
    from palladion.redteam.audit.text_answers import is_text_folder
    from palladion.redteam.audit.text_doors import is_language_model

    scan = installation.policy.scan
    with ExitStack() as stack:
        with ExitStack() as first:
            opened = first.enter_context(open_version(installation, name))
            version = opened.version
            route = next((item for item in installation.policy.route if item.model == version.model), None)
            route = route or RoutePolicy(model=version.model)
            exhibit = exhibit_of(opened.model, scan.operator_domains)
            if local.beside is not None:
                exhibit = with_folder(
                    exhibit, local.beside, operator_domains=scan.operator_domains, bytes_max=scan.file_bytes_max
                )
            full, digest = f"{version.model}@{version.number}", version.content_digest
            ready: dict[str, Stage] = {}
            if text.prompts is None and is_language_model(opened.model) and local.data.rows is None:
                # it stays open: what is read of its last layer is held against the true one
                stack.push(first.pop_all())
                subject, ready = local_text(opened.model, full, digest, route, exhibit)
            elif is_text_folder(opened.model) and local.data.rows is None:
                texts = local_folder(installation, version, route, exhibit, text, seed=seed)
                subject, ready = stack.enter_context(texts)
            elif text.prompts is not None:
                raise click.UsageError("--prompts is for a language model in a folder, or behind an address")
            else:
                subject = _subject(opened.model, full, digest, route, exhibit, local)
        if local.owned:
            ready |= stack.enter_context(_removal(installation, full, local, seed))
        yield version, subject, ready


def _subject(
    model: "Model", name: str, digest: str, route: "RoutePolicy", exhibit: "Exhibit", local: Local
) -> "Subject":
    from palladion.gate.contract import make_contract
    from palladion.model.run import open_session
    from palladion.redteam.audit.subject import subject_of, training_of
    from palladion.redteam.victim import meet, read_data

    if local.data.rows is None:
        raise click.UsageError("--rows is missing: a model that is no language model is attacked with rows")
    session = open_session(model)
    feeds, right = read_data(local.data.rows, local.data.labels, model, session)
    learnt = None if local.data.training is None else read_data(local.data.training, None, model, session)
    contract = make_contract(route, session.outputs)
    victim = meet(session, contract, feeds, right)
    members = None
    if learnt is not None:
        if learnt[1] is None or victim.right is None:
            raise FormatError("membership needs labels of both the rows of training and the others", "y beside x")
        own = meet(session, contract, *learnt)
        members = training_of(own.rows, learnt[1][: len(own.rows)], victim.rows, victim.right)
    return subject_of(victim, route, name, digest, training=members, exhibit=exhibit)


@contextmanager
def _removal(installation: "Installation", name: str, local: Local, seed: int) -> "Iterator[dict[str, Stage]]":
    """The stage `removal` with what the owner's keys open; skipped, with the reason, where there is no mark."""
    from palladion.redteam.audit.removal import REMOVAL, with_trial
    from palladion.redteam.removal.opened import opened_trial

    owner = installation.open_owner_root(owner_identities(local.passphrase_file, local.identity_file))
    with ExitStack() as stack:
        try:
            trial, _ = stack.enter_context(opened_trial(installation, owner, name))
        except ConflictError as error:
            reason = error.message
            yield {REMOVAL.name: replace(REMOVAL, missing=lambda _subject: reason)}
            return
        usefulness = usefulness_of(trial.marked, local.data.rows, local.data.labels, seed=seed)
        yield {REMOVAL.name: with_trial(REMOVAL, trial, usefulness)}
