"""What an audit can find: stable ids, for reports that other tools read, with the names that others give to it."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Rule:
    """A kind of finding: its title, what to do about it, and ids in MITRE ATLAS and OWASP."""

    id: str
    title: str
    help: str
    ids: tuple[str, ...]


_ALL = (
    Rule(
        "extraction",
        "A copy of the model can be trained from its answers",
        "disclose less (docs/disclosure.md), set budgets of information (docs/limits.md), enforce the watch",
        ("AML.T0024.002", "AML.T0005.001", "ML05:2023"),
    ),
    Rule(
        "membership",
        "Answers tell who was in the training data",
        "answer with labels or few decimals, train with weight decay or differential privacy",
        ("AML.T0024.000", "ML04:2023"),
    ),
    Rule(
        "attributes",
        "Answers tell a sensitive value of somebody who is known otherwise",
        "leave the column out, or train with differential privacy",
        ("AML.T0024.000", "ML04:2023"),
    ),
    Rule(
        "inversion",
        "What a class looks like can be made from answers",
        "answer with labels, and limit queries around one point",
        ("AML.T0024.001", "ML03:2023"),
    ),
    Rule(
        "distillation",
        "A student can be taught the answers of a language model",
        "show no log probabilities (docs/chat.md), set budgets of information (docs/limits.md), enforce the watch",
        ("AML.T0024.002", "AML.T0005.001", "LLM10:2025"),
    ),
    Rule(
        "last-layer",
        "The last layer of a language model can be read out of its log probabilities",
        "refuse logit_bias together with logprobs, as the gate does (docs/chat.md)",
        ("AML.T0024.002", "LLM10:2025"),
    ),
    Rule(
        "reverse-engineering",
        "Answers and times tell how the model is built",
        "say nothing in errors, and let answers take the same time",
        ("AML.T0014", "AML.T0063"),
    ),
    Rule(
        "removal",
        "A copy can lose the mark and stay useful",
        "palladion redteam removal says which attacks, docs/marks.md what no mark survives; mark more weights",
        ("AML.T0048.004", "ML05:2023"),
    ),
    Rule(
        "exposed-surface",
        "The service shows more than its answers",
        "put the gate in front, and close every other way to the model server",
        ("AML.T0040", "LLM10:2025"),
    ),
    Rule(
        "supply-chain",
        "A file beside the model can run code, or is not what it says",
        "do not open it; palladion scan says why, and where it came from has to be asked",
        ("AML.T0010.003", "ML06:2023"),
    ),
    Rule(
        "not-noticed",
        "A thief is through before anybody reacts",
        "calibrate the watch, enforce it, and set budgets",
        ("AML.T0024.002", "ML05:2023"),
    ),
)
RULES: Mapping[str, Rule] = MappingProxyType({rule.id: rule for rule in _ALL})
