"""Rules on single queries: words and parameters that harvests of language models are known by.

A rule decides nothing. It is one number of a query, 1 where it applies, and counts by how often honest clients do the
same: who asks for reasons like one honest client in seven is not suspected for it. Each has an id, words for people,
and a technique of MITRE ATLAS.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from palladion.watch.text.query import Parameters

ALTERNATIVES_FEW = 1  # with more, log-probabilities tell distributions and not only how sure the model is
CHOICES_FEW = 1


class Rule(NamedTuple):
    """What a rule notices in a sentence, and the technique it is a sign of."""

    sentence: str
    technique: str


_EXTRACTION = "AML.T0024.002"  # exfiltration by the inference API: extract the model
_ACCESS = "AML.T0040"  # access to the inference API

RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "reasoning": Rule("asks for the model's own train of thought", _EXTRACTION),
        "refusal": Rule("tells the model not to refuse, or asks what it would refuse", _EXTRACTION),
        "invention": Rule("asks for new tasks, or for data to train a model with", _EXTRACTION),
        "enumeration": Rule("is written like one record of a data set after the other", _EXTRACTION),
        "odds": Rule("asks for log-probabilities of several tokens, or biases tokens", _EXTRACTION),
        "choices": Rule("asks for several answers at once", _ACCESS),
    }
)
"""All rules by id, in the order of `applied`."""

# Phrases of folded texts (lower case, 0 for every digit) by a word that is looked for first, because most texts do not
# have it. Not patterns: four of the same phrases took 240 µs a text, this takes 16, and never longer.
_PHRASES: tuple[Mapping[bytes, tuple[bytes, ...]], ...] = (
    {
        b"step": (b"step by step", b"step-by-step", b"every step", b"all steps"),
        b"thought": (b"chain of thought", b"chain-of-thought", b"train of thought", b"your thoughts"),
        b"reason": (b"your reasoning", b"the reasoning", b"internal reasoning", b"full reasoning", b"reason aloud"),
        b"think": (b"your thinking", b"<think", b"think aloud", b"think out loud"),
        b"your work": (b"show your work",),
        b"justify": (b"justify the answer", b"justify your answer"),
    },
    {
        b"refus": (
            *(b"do not refuse", b"don't refuse", b"never refuse", b"without refusing", b"would you refuse"),
            *(b"refusal message", b"refusal template", b"refusal response"),
        ),
        b"apologi": (b"never apologi", b"do not apologi", b"don't apologi", b"without apologi"),
        b"ignore": (b"ignore previous instructions", b"ignore all previous", b"ignore your instructions"),
        b"as an ai": (b"as an ai language model", b"as an ai model", b"as an ai, i c"),
    },
    {
        b"tasks": (b"new tasks", b"diverse tasks", b"similar tasks"),
        b"instruction": (b"new instructions", b"diverse instructions", b"instruction data", b"this instruction"),
        b"training": (b"training example", b"training data", b"training a language", b"training a model"),
        b"complex version": (b"more complex version",),
        b"generate 0": (b"generate 0",),
        b"preference": (b"preference pair", b"preference data"),
    },
    {
        b"# ": (b"# instruction", b"# input", b"# response", b"# example"),
        b"0:": tuple(
            word + b" " + b"0" * digits + b":"
            for digits in (1, 2, 3, 4)
            for word in (b"example", b"sample", b"record", b"item", b"task")
        ),
        b"data set": (b"from a data set", b"of a data set"),
        b"[inst]": (b"[inst]",),
        b"<|im_": (b"<|im_start",),
    },
)


def applied(folded: bytes, parameters: Parameters) -> list[float]:
    """1 for each rule that applies to a text that is `ngrams.folded` and to its parameters, 0 for the others."""
    found = [1.0 if _holds(folded, phrases) else 0.0 for phrases in _PHRASES]
    found.append(1.0 if (parameters.alternatives or 0) > ALTERNATIVES_FEW or parameters.biased else 0.0)
    found.append(1.0 if (parameters.choices or 1) > CHOICES_FEW else 0.0)
    return found


def _holds(folded: bytes, phrases: Mapping[bytes, tuple[bytes, ...]]) -> bool:
    for word, longer in phrases.items():
        if word in folded:
            for phrase in longer:
                if phrase in folded:
                    return True
    return False
