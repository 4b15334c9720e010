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


EXTRACTION = "AML.T0024.002"  # exfiltration by the inference API: extract the model
_ACCESS = "AML.T0040"  # access to the inference API

RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "reasoning": Rule("asks for the model's own train of thought", EXTRACTION),
        "refusal": Rule("tells the model not to refuse, or asks what it would refuse", EXTRACTION),
        "invention": Rule("asks for new tasks, or for data to train a model with", EXTRACTION),
        "enumeration": Rule("is written like one record of a data set after the other", EXTRACTION),
        "odds": Rule("asks for log-probabilities of several tokens, or biases tokens", EXTRACTION),
        "choices": Rule("asks for several answers at once", _ACCESS),
    }
)
"""All rules by id, in the order of `applied`."""

# Phrases of folded texts (lower case, 0 for every digit) by four letters that each of them has, because most texts have
# none of these: `ngrams` tells which may be there in one pass. Not patterns: four of these phrases took 240 µs a text.
_PHRASES: tuple[Mapping[bytes, tuple[bytes, ...]], ...] = (
    {
        b"step": (b"step by step", b"step-by-step", b"every step", b"all steps"),
        b"houg": (b"chain of thought", b"chain-of-thought", b"train of thought", b"your thoughts"),
        b"easo": (b"your reasoning", b"the reasoning", b"internal reasoning", b"full reasoning", b"reason aloud"),
        b"hink": (b"your thinking", b"<think", b"think aloud", b"think out loud"),
        b"r wo": (b"show your work",),
        b"stif": (b"justify the answer", b"justify your answer"),
    },
    {
        b"efus": (
            *(b"do not refuse", b"don't refuse", b"never refuse", b"without refusing", b"would you refuse"),
            *(b"refusal message", b"refusal template", b"refusal response"),
        ),
        b"polo": (b"never apologi", b"do not apologi", b"don't apologi", b"without apologi"),
        b"gnor": (b"ignore previous instructions", b"ignore all previous", b"ignore your instructions"),
        b"n ai": (b"as an ai language model", b"as an ai model", b"as an ai, i c"),
    },
    {
        b"asks": (b"new tasks", b"diverse tasks", b"similar tasks"),
        b"nstr": (b"new instructions", b"diverse instructions", b"instruction data", b"this instruction"),
        b"rain": (b"training example", b"training data", b"training a language", b"training a model"),
        b"x ve": (b"more complex version",),
        b"te 0": (b"generate 0",),
        b"pref": (b"preference pair", b"preference data"),
    },
    {
        b"# in": (b"# instruction", b"# input"),
        b"# re": (b"# response",),
        b"# ex": (b"# example",),
        **{
            words[0][-2:] + b" 0": tuple(
                word + b" " + b"0" * digits + b":" for word in words for digits in (1, 2, 3, 4)
            )
            for words in ((b"example", b"sample"), (b"record",), (b"item",), (b"task",))
        },
        b"ta s": (b"from a data set", b"of a data set"),
        b"[ins": (b"[inst]",),
        b"<|im": (b"<|im_start",),
    },
)


LETTERS: tuple[tuple[bytes, ...], ...] = tuple(tuple(phrases) for phrases in _PHRASES)
"""For each rule on words the groups of four letters of which a text has one or more if the rule applies to it."""

EVERY = (1 << len(LETTERS)) - 1


def applied(folded: bytes, parameters: Parameters, possible: int = EVERY) -> list[float]:
    """1 for each rule that applies to a text that is `ngrams.folded` and to its parameters, 0 for the others.

    `possible` has a bit for each rule on words, in their order: 0 where the text has none of its `LETTERS`.
    """
    found = [
        1.0 if possible >> number & 1 and _holds(folded, phrases) else 0.0 for number, phrases in enumerate(_PHRASES)
    ]
    found.append(1.0 if (parameters.alternatives or 0) > ALTERNATIVES_FEW or parameters.biased else 0.0)
    found.append(1.0 if (parameters.choices or 1) > CHOICES_FEW else 0.0)
    return found


def _holds(folded: bytes, phrases: Mapping[bytes, tuple[bytes, ...]]) -> bool:
    for letters, longer in phrases.items():
        if letters in folded:
            for phrase in longer:
                if phrase in folded:
                    return True
    return False
