"""`palladion redteam run` on a language model: here as an ONNX file or a folder, or behind an API of OpenAI's form."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from palladion.cli.output import actor, find_installation
from palladion.cli.prove.api import capturing, limits_of
from palladion.cli.redteam_remote import Address

if TYPE_CHECKING:
    from palladion.lifecycle.capture import Capture
    from palladion.lifecycle.installation import Installation
    from palladion.lifecycle.probe import Api
    from palladion.model.model import Model
    from palladion.policy import RoutePolicy
    from palladion.redteam.audit.chat_remote import ChatRemote
    from palladion.redteam.audit.exhibit import Exhibit
    from palladion.redteam.audit.journal import Journal
    from palladion.redteam.audit.stage import Stage
    from palladion.redteam.audit.subject import Subject
    from palladion.redteam.last_layer import TextDoor
    from palladion.redteam.prompts import Prompts
    from palladion.redteam.text_students import TextStudent
    from palladion.registry import Version
    from palladion.transit.url import Url
    from palladion.transit.web import Web

_Command = TypeVar("_Command", bound=Callable[..., Any])
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@dataclass(frozen=True)
class Text:
    """What the options say about a language model."""

    language_model: str | None
    tokenizer: Path | None
    vocabulary: int | None
    alternatives: int
    prompts: Path | None
    student: Path | None

    @classmethod
    def taken(cls, options: dict[str, Any]) -> "Text":
        """Its options, taken out of those that a command was given."""
        return cls(*(options.pop(item.name) for item in fields(cls)))


def text_options(command: _Command) -> _Command:
    """What `redteam run` takes of a language model."""
    decorators: list[Callable[[_Command], _Command]] = [
        click.option(
            "--language-model",
            metavar="NAME",
            help="Of an address: it is a language model's, of /chat/completions or /completions, under this name.",
        ),
        click.option(
            "--tokenizer", type=_FILE, metavar="FILE", help="Of a language model: its tokenizer.json, for its tokens."
        ),
        click.option(
            "--vocabulary",
            type=click.IntRange(2, 1_000_000),
            metavar="N",
            help="Of a language model whose server names tokens by number (vLLM, llama.cpp): how many there are.",
        ),
        click.option(
            "--alternatives",
            type=click.IntRange(1, 20),
            default=5,
            show_default=True,
            help="Of a language model: likeliest tokens to ask for in a request.",
        ),
        click.option(
            "--prompts",
            type=_FILE,
            metavar="FILE",
            help="Of a language model: prompts as honest clients send them, JSON lines with task and prompt. Half of "
            "them are a thief's, and the others judge his student.",
        ),
        click.option(
            "--student",
            type=click.Path(exists=True, file_okay=False, path_type=Path),
            metavar="FOLDER",
            help="With --prompts: a small model that is taught, as Hugging Face has them; without, one is made here.",
        ),
    ]
    for decorate in reversed(decorators):
        command = decorate(command)
    return command


def check_text(text: Text, *, address: bool) -> None:
    """Raise UsageError for options that do not go together."""
    named = text.language_model is not None
    if named and not address:
        raise click.UsageError("--language-model is for an address; a model here is recognised")
    if not named and (text.tokenizer is not None or text.vocabulary is not None):
        raise click.UsageError("--tokenizer and --vocabulary go with --language-model")
    if address and not named and text.prompts is not None:
        raise click.UsageError("--prompts goes with --language-model")
    if text.student is not None and text.prompts is None:
        raise click.UsageError("--student goes with --prompts")
    if named and text.tokenizer is not None and text.vocabulary is not None:
        raise click.UsageError("a language model takes one of --tokenizer FILE and --vocabulary N")
    if named and text.tokenizer is None and text.vocabulary is None and text.prompts is None:
        raise click.UsageError("a language model takes one of --tokenizer FILE and --vocabulary N, or --prompts FILE")


def local_text(
    model: "Model", name: str, digest: str, route: "RoutePolicy", exhibit: "Exhibit"
) -> "tuple[Subject, dict[str, Stage]]":
    """The subject of a language model that runs here, and its stage, ready to be run."""
    from palladion.model.run import open_session
    from palladion.redteam.audit.last_layer import DEPLOYED, LAST_LAYER, OPEN, UNDEFENDED, text_subject, with_doors
    from palladion.redteam.audit.text_doors import GatedText, LocalText, OpenText, UndefendedText, layers_of

    local = LocalText(open_session(model))
    service = OpenText(local)
    doors: dict[str, TextDoor] = {UNDEFENDED: UndefendedText(local), OPEN: service, DEPLOYED: GatedText(service, route)}
    answers = {
        UNDEFENDED: "all logits",
        OPEN: f"{service.alternatives} log probabilities, and biases",
        DEPLOYED: f"logprobs {route.logprobs}, logit_bias {route.logit_bias}",
    }
    subject = text_subject(name, digest, answers, DEPLOYED, exhibit)
    stage = with_doors(LAST_LAYER, doors, lambda hidden: layers_of(model, local.vocabulary, hidden))
    return subject, {stage.name: stage}


@contextmanager
def local_folder(
    installation: "Installation",
    version: "Version",
    route: "RoutePolicy",
    exhibit: "Exhibit",
    text: Text,
    *,
    seed: int,
) -> "Iterator[tuple[Subject, dict[str, Stage]]]":
    """The subject of a language model in a folder that is sealed here, and its stage; in memory for the block."""
    from tempfile import TemporaryDirectory

    from palladion.host.host import Host
    from palladion.lifecycle.installation import gate_identity
    from palladion.redteam.audit.distillation import DISTILLATION, with_texts
    from palladion.redteam.audit.last_layer import text_subject
    from palladion.redteam.audit.text_answers import DEPLOYED, FolderText, doors_of, words_of
    from palladion.transformers import opened_folder

    name, digest = f"{version.model}@{version.number}", version.content_digest
    if text.prompts is None:
        yield text_subject(name, digest, {DEPLOYED: "texts"}, DEPLOYED, exhibit), {}
        return
    prompts = read_prompts_of(text)
    identities = [gate_identity(installation.open_gate_root())]
    place = installation.paths.sealed / version.served.path
    with TemporaryDirectory() as seen:
        host = Host(Path(seen), installation.clock, identities=identities, publishers=installation.publishers())
        # it stays open: weights may be read out of it for as long as the model is asked
        with opened_folder(place, host=host) as folder:
            doors = doors_of(FolderText(folder, seed=seed), route)
            subject = text_subject(name, digest, words_of(doors), DEPLOYED, exhibit)
            stage = with_texts(DISTILLATION, doors, prompts, lambda: student_of(text), named=_named(text.student))
            yield subject, {stage.name: stage}


def read_prompts_of(text: Text) -> "Prompts":
    """The owner's prompts; raises FormatError where the file holds none."""
    from palladion.redteam.prompts import read_prompts

    if text.prompts is None:
        raise ValueError("no prompts were named")
    return read_prompts(text.prompts)


def student_of(text: Text) -> "TextStudent":
    """The student that is taught. Raises MissingExtraError without torch."""
    from palladion.redteam.text_students import ByteStudent, FolderStudent, require_torch

    require_torch()
    return ByteStudent() if text.student is None else FolderStudent(text.student)


def _named(folder: Path | None) -> str:
    """What tells one student from another: a folder in which something was changed holds another one."""
    if folder is None:
        return ""
    found = sorted((str(path.relative_to(folder)), path.stat()) for path in folder.rglob("*") if path.is_file())
    return " ".join([str(folder), *(f"{name}:{stat.st_size}:{stat.st_mtime_ns}" for name, stat in found)])


@contextmanager
def remote_text(
    ctx: click.Context, url: "Url", address: Address, text: Text, *, state: Path
) -> "Iterator[tuple[Subject, dict[str, Stage], Callable[[], str]]]":
    """The subject of the language model behind `url`, its stages, and what says how its capture ends.

    That it is attacked is recorded before it is asked.
    """
    from palladion import files
    from palladion.lifecycle.capture import new_capture
    from palladion.redteam.audit.journal import Journal
    from palladion.redteam.audit.last_layer import DEPLOYED, text_subject
    from palladion.redteam.audit.record import record_planned
    from palladion.redteam.audit.remote_subject import digest_of
    from palladion.transit.web import Web

    installation = find_installation(ctx)
    api, *others = address.apis(url)
    prompts = None if text.prompts is None else read_prompts_of(text)
    tokens, texts = tokens_of(text)
    files.make_private_directory(state.parent)
    files.make_private_directory(state)
    web = Web(limits_of(url))
    with (
        files.exclusive_lock(state / "asking", what=f"the audit in {state}"),
        capturing(address.capture, installation.clock) as path,
        new_capture(path, installation.clock) as capture,
        Journal(state / f"texts-{digest_of(api)[:16]}.jsonl") as journal,
    ):
        try:
            record_planned(installation, str(url), actor=actor(), queries=address.budget)
            capture.write("plan", {"suspect": str(url), "budget": address.budget, "authorised": f"stated by {actor()}"})
            asking = _Asking(api, text, address, web, capture, journal)
            # a result that was kept is of the same tokens, too
            what = f"{url} {text.language_model} {text.alternatives} {tokens} {sorted(texts.items())}"
            answers = {DEPLOYED: f"{text.alternatives} log probabilities, and biases, if it takes them"}
            subject = text_subject(str(url), sha256(what.encode()).hexdigest(), answers, DEPLOYED)
            ready = asking.last_layer(tokens, texts) if tokens else {}
            if prompts is not None:
                remote, stage = asking.distillation(prompts, [other.key for other in others])
                subject, ready = replace(subject, service=remote), ready | {stage.name: stage}
            yield subject, ready, lambda: capture.digest
        finally:
            web.close()


def tokens_of(text: Text) -> tuple[list[int], dict[str, int]]:
    """The tokens whose log probabilities are asked for, by number, and numbers by text where they are known by text."""
    from palladion import files
    from palladion.redteam.audit.text_remote import TOKENIZER_BYTES_MAX, texts_of

    if text.tokenizer is None:
        return list(range(text.vocabulary or 0)), {}
    texts = texts_of(files.read_limited(text.tokenizer, size_max=TOKENIZER_BYTES_MAX, what="the tokenizer"))
    return sorted(texts.values()), texts


@dataclass(frozen=True, eq=False)
class _Asking:
    """What both attacks on a service share."""

    api: "Api"
    text: Text
    address: Address
    web: "Web"
    capture: "Capture"
    journal: "Journal"

    def last_layer(self, tokens: list[int], texts: dict[str, int]) -> "dict[str, Stage]":
        from palladion.lifecycle.probe import Spending
        from palladion.redteam.audit.last_layer import DEPLOYED, LAST_LAYER, with_doors
        from palladion.redteam.audit.text_remote import RemoteText

        door = RemoteText(
            self.api, self.text.language_model or "", tokens, texts,
            alternatives=self.text.alternatives, web=self.web, capture=self.capture,
            spending=Spending(self.address.budget, time.sleep, self.address.per_second), journal=self.journal,
        )  # fmt: skip
        stage = with_doors(LAST_LAYER, {DEPLOYED: door}, None)
        return {stage.name: stage}

    def distillation(self, prompts: "Prompts", more_keys: list[str | None]) -> "tuple[ChatRemote, Stage]":
        from palladion.redteam.audit.chat_remote import CONTROLS, ChatRemote
        from palladion.redteam.audit.distillation import DISTILLATION, with_texts
        from palladion.redteam.audit.last_layer import DEPLOYED

        remote = ChatRemote(
            self.api, self.text.language_model or "", self.journal, self.capture, self.web,
            alternatives=self.text.alternatives, budget=self.address.budget, per_second=self.address.per_second,
            wait=time.sleep, more_keys=more_keys,
        )  # fmt: skip
        remote.meet([text for name in prompts.names for text in prompts.tasks[name][:CONTROLS]][:CONTROLS])
        stage = with_texts(
            DISTILLATION, {DEPLOYED: remote}, prompts, lambda: student_of(self.text), named=_named(self.text.student)
        )
        return remote, stage
