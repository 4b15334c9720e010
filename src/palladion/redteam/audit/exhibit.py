"""What the file of a model shows to whoever gets it: how it was made, what is in it, and whether it is mere data."""

from collections.abc import Collection
from dataclasses import dataclass

from palladion.model import onnx_schema
from palladion.model.model import Model
from palladion.model.protobuf import Budget, Message
from palladion.redteam.audit.result import Observation
from palladion.scan.scanner import scan_model

NAMES_MAX = 8  # that are listed of what the file names
CHARACTERS_MAX = 60  # of each


@dataclass(frozen=True)
class Exhibit:
    """What was seen, in the order in which it is said."""

    observations: tuple[Observation, ...]


def exhibit_of(model: Model, operator_domains: Collection[str]) -> Exhibit:
    """What a file tells beside its weights, and what `palladion scan` finds in it."""
    found = [
        Observation("supply-chain", "error", item.message, item.where) for item in scan_model(model, operator_domains)
    ]
    made = _producer(model)
    if made:
        found.append(_note(f"the file says that {_short(made)} made it", "producer"))
    if model.metadata:
        pairs = [f"{_short(name)} = {_short(value)}" for name, value in model.metadata.items()]
        found.append(_note(f"the file carries metadata: {_listed(pairs)}", "metadata"))
    if model.graph is not None:
        ports = [item.name for item in (*model.graph.inputs, *model.graph.outputs)]
        found.append(_note(f"inputs and outputs are called {_listed(ports)}", "names"))
        # operators that only a converter writes say what trained the model
        foreign = sorted({domain for domain, _ in model.graph.operators if domain})
        if foreign:
            found.append(_note(f"operators of {_listed(foreign)} tell what kind of model it is", "operators"))
    words = [name for name in model.tensors if any(letter.isalpha() for letter in name)]
    if words:
        found.append(_note(f"{len(words)} of {len(model.tensors)} tensors have names that tell their place, such as "
                           f"{_listed(words, 3)}", "tensors"))  # fmt: skip
    return Exhibit(tuple(found))


def _producer(model: Model) -> str:
    if model.format != "onnx":
        return ""
    message = Message(model.files[0].data, onnx_schema.MODEL, model.files[0].name, Budget())
    return " ".join(filter(None, (message.text("producer_name"), message.text("producer_version"))))


def _note(text: str, where: str) -> Observation:
    return Observation("reverse-engineering", "note", text, where)


def _listed(names: Collection[str], most: int = NAMES_MAX) -> str:
    shown = [_short(name) for name in names][:most]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _short(text: str) -> str:
    return text if len(text) <= CHARACTERS_MAX else f"{text[:CHARACTERS_MAX]}…"
