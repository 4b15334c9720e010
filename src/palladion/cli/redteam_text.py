"""`palladion redteam run` on a language model: here as an ONNX file, or behind an API of OpenAI's form."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from palladion.cli.output import actor, find_installation
from palladion.cli.prove.api import capturing, limits_of, read_api
from palladion.cli.redteam_remote import Address

if TYPE_CHECKING:
    from palladion.model.model import Model
    from palladion.policy import RoutePolicy
    from palladion.redteam.audit.exhibit import Exhibit
    from palladion.redteam.audit.stage import Stage
    from palladion.redteam.audit.subject import Subject
    from palladion.redteam.last_layer import TextDoor
    from palladion.transit.url import Url

_Command = TypeVar("_Command", bound=Callable[..., Any])
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@dataclass(frozen=True)
class Text:
    """What the options say about a language model behind an address."""

    language_model: str | None
    tokenizer: Path | None
    vocabulary: int | None
    alternatives: int

    @classmethod
    def taken(cls, options: dict[str, Any]) -> "Text":
        """Its options, taken out of those that a command was given."""
        return cls(*(options.pop(item.name) for item in fields(cls)))


def text_options(command: _Command) -> _Command:
    """What `redteam run` takes where the address is that of a language model."""
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
    if named and (text.tokenizer is None) == (text.vocabulary is None):
        raise click.UsageError("a language model takes one of --tokenizer FILE and --vocabulary N")


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
def remote_text(
    ctx: click.Context, url: "Url", address: Address, text: Text, *, state: Path
) -> "Iterator[tuple[Subject, dict[str, Stage], Callable[[], str]]]":
    """The subject of the language model behind `url`, its stage, and what says how its capture ends.

    That it is attacked is recorded before it is asked.
    """
    from palladion import files
    from palladion.lifecycle.capture import new_capture
    from palladion.lifecycle.probe import Spending
    from palladion.redteam.audit.last_layer import DEPLOYED, LAST_LAYER, text_subject, with_doors
    from palladion.redteam.audit.record import record_planned
    from palladion.redteam.audit.text_remote import TOKENIZER_BYTES_MAX, RemoteText, texts_of
    from palladion.transit.web import Web

    installation = find_installation(ctx)
    texts: dict[str, int] = {}
    if text.tokenizer is not None:
        texts = texts_of(files.read_limited(text.tokenizer, size_max=TOKENIZER_BYTES_MAX, what="the tokenizer"))
    tokens = sorted(texts.values()) if texts else list(range(text.vocabulary or 0))
    api = read_api(url, api_file=None, key_file=address.key_file, no_key=address.no_key)
    files.make_private_directory(state.parent)
    files.make_private_directory(state)
    web = Web(limits_of(url))
    with (
        files.exclusive_lock(state / "asking", what=f"the audit in {state}"),
        capturing(address.capture, installation.clock) as path,
        new_capture(path, installation.clock) as capture,
    ):
        try:
            record_planned(installation, str(url), actor=actor(), queries=address.budget)
            capture.write("plan", {"suspect": str(url), "budget": address.budget, "authorised": f"stated by {actor()}"})
            spending = Spending(address.budget, time.sleep, address.per_second)
            door = RemoteText(
                api, text.language_model or "", tokens, texts,
                alternatives=text.alternatives, web=web, capture=capture, spending=spending,
            )  # fmt: skip
            # a result that was kept is of the same tokens, too
            what = f"{url} {text.language_model} {text.alternatives} {tokens} {sorted(texts.items())}"
            answers = {DEPLOYED: f"{text.alternatives} log probabilities, and biases, if it takes them"}
            subject = text_subject(str(url), sha256(what.encode()).hexdigest(), answers, DEPLOYED)
            stage = with_doors(LAST_LAYER, {DEPLOYED: door}, None)
            yield subject, {stage.name: stage}, lambda: capture.digest
        finally:
            web.close()
