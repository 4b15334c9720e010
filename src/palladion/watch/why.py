"""Why a standing was asked for, as a record keeps it: the cause, the test that spoke, and what was most unlike honest.

Bounded texts without floats, made once, when it happens; and the same in words, for whoever reads the record later. A
record of an earlier release has none of it, and one of a later release may have what is not known here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any, Literal

from palladion.watch.activations import LAYERS_MAX, layer_words
from palladion.watch.features import ATYPICAL, FEATURES, SCORES
from palladion.watch.manner import MANNERS
from palladion.watch.response import Verdict
from palladion.watch.taxonomy import ids_of
from palladion.watch.text.features import TEXT_FEATURES
from palladion.watch.text.rules import RULES

FEATURES_MAX = 5  # in a record
DEVIATION_MAX = 999.9  # what is farther off says no more, and a client must not write long numbers into a record
_NAME_CHARACTERS_MAX = 40  # of a feature that a record of another release names
Test = Literal["clients", "lately", "near", "near-lately", "manner", "past", "few", "group", "budget", "decoy", "rules"]
# the tests of `own_tests`, in their order
BY_PLACE: Sequence[Test] = ("clients", "lately", "near", "near-lately", "manner")
Looks = Literal["numbers", "texts"]

TESTS: Mapping[str, str] = MappingProxyType(
    {
        "clients": "its queries beside those of honest clients",
        "lately": "its latest queries beside those of honest clients",
        "near": "how often it asks near its own earlier queries",
        "near-lately": "how often it asks near its own earlier queries lately",
        "manner": "when it asks and which answers follow each other, beside honest clients",
        "past": "its queries beside its own earlier ones",
        "few": "its queries beside those of few honest clients",
        "group": "the queries of linked accounts together",
        "budget": "the information budget",
        "decoy": "a decoy",
        "rules": "rules on the words and parameters of its requests",
    }
)
_BY_VERDICT: Mapping[str, tuple[str, Test]] = MappingProxyType(
    {
        "campaign": ("campaign", "group"),
        "budget": ("budget", "budget"),
        "decoy": ("decoy-query", "decoy"),
        "rules": ("harvest", "rules"),
    }
)
_OF_REPEATS = frozenset({"near", "near-lately"})
# What an unusual value of a feature is a sign of; every other feature of numbers and of texts is one of foreign data.
_NUMBERS: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("confidence", "margin", "entropy"), "probing"),
        "repeats": "repeats",
        **dict.fromkeys(("pace", "regularity", "hour"), "rate"),
        **dict.fromkeys(("run", "balance"), "client"),  # a choice of queries by their answers, or none at all
    }
)
_TEXTS: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys((*RULES, "template", "sweep", "answers", "cohesion"), "harvest"),
        **dict.fromkeys(("pace", "regularity", "hour"), "rate"),
        "repeats": "repeats",
        "failures": "probing",
    }
)


@dataclass(frozen=True)
class Unlike:
    """What of a client, or of its group, is most unlike honest clients: features by name, with standard deviations.

    The oddest first; none where nothing is noteworthy. `test` is the one that spoke, if one did.
    """

    test: Test = "clients"
    looks: Looks = "numbers"
    features: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Why:
    """The cause, a key of `taxonomy.DETECTIONS`; the test that spoke; what was unlike, if the test looks at that."""

    cause: str
    test: Test
    looks: Looks = "numbers"
    features: tuple[tuple[str, str], ...] = ()

    def details(self) -> dict[str, Any]:
        """The members of a record's details that say it: `cause` and `why`."""
        told: dict[str, Any] = {"test": self.test}
        if self.features:
            told |= {"looks": self.looks, "features": [list(feature) for feature in self.features]}
        return {"cause": self.cause, "why": told}


def why_of(verdict: Verdict, unlike: Unlike | None) -> Why | None:
    """Why a verdict asks for its standing; `unlike` is of the client that asked. None for one that rests on nothing."""
    if verdict.cause is None:
        return None
    looked = unlike or Unlike()
    shown = tuple((name, _deviation(value)) for name, value in looked.features[:FEATURES_MAX])
    if verdict.cause != "client":
        cause, test = _BY_VERDICT[verdict.cause]
        return Why(cause, test, looked.looks, shown if test == "group" else ())
    # that a query is unlike in all together says nothing of how
    top = next((name for name, _ in shown if name != ATYPICAL), ATYPICAL if shown else "")
    if verdict.listed:
        cause = "feed"
    elif looked.test in _OF_REPEATS:
        cause = "repeats"
    else:
        cause = cause_of_feature(top, looked.looks) if top else "client"
    # a group speaks in a verdict of its own
    return Why(cause, "clients" if looked.test == "group" else looked.test, looked.looks, shown)


def cause_of_feature(name: str, looks: Looks) -> str:
    """What it is a sign of that a feature is the most unusual one."""
    return (_TEXTS if looks == "texts" else _NUMBERS).get(name, "foreign-data")


def words_of(name: str, looks: str) -> str:
    """What an unusual value of a feature means to a person; empty for a name that is not known here."""
    return _words()[looks].get(name, "") if looks in ("numbers", "texts") else ""


def said(details: Mapping[str, Any], *, words: int = 1) -> str:
    """What a record's details say of its cause, as one phrase: test, features (the first `words` in words), ids.

    Empty where they say nothing.
    """
    why = details.get("why")
    told: Mapping[str, Any] = why if isinstance(why, dict) else {}
    cause = details.get("cause")
    parts = []
    test = told.get("test")
    if isinstance(test, str) and test in TESTS:
        parts.append(f"by {TESTS[test]}")
    shown = _features(told.get("features"))
    if shown:
        looks = str(told.get("looks"))
        named = [_named(name, deviation, looks, in_words=n < words) for n, (name, deviation) in enumerate(shown)]
        beside = "its earlier ones" if test == "past" else "honest ones"
        parts.append(f"most unlike {beside}: {', '.join(named)}")
    if isinstance(cause, str) and cause:
        ids = ids_of(cause)
        parts.append(f"{cause[:_NAME_CHARACTERS_MAX]} ({', '.join(ids)})" if ids else cause[:_NAME_CHARACTERS_MAX])
    return "; ".join(parts)


def _named(name: str, deviation: str, looks: str, *, in_words: bool) -> str:
    meaning = words_of(name, looks) if in_words else ""
    return f"{name} {deviation} ({meaning})" if meaning else f"{name} {deviation}"


def _features(found: object) -> Sequence[tuple[str, str]]:
    """The features of a record that are some; it may be of another release."""
    if not isinstance(found, list):
        return ()
    pairs = [item for item in found[:FEATURES_MAX] if isinstance(item, list) and len(item) == 2]
    return [(str(name)[:_NAME_CHARACTERS_MAX], str(value)[:_NAME_CHARACTERS_MAX]) for name, value in pairs]


def _deviation(value: float) -> str:
    return f"{max(-DEVIATION_MAX, min(DEVIATION_MAX, value)):+.1f}"


@cache
def _words() -> Mapping[str, Mapping[str, str]]:
    made_of_all = {ATYPICAL: SCORES[ATYPICAL]}
    return {
        "numbers": {**FEATURES, **layer_words(LAYERS_MAX), **made_of_all, **MANNERS},
        "texts": {**TEXT_FEATURES, **made_of_all},
    }
