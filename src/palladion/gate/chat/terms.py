"""What a client gets of a language model, by standing: the one table of docs/chat.md, as a pure function.

| standing | answers of a request | tokens of an answer | log-probabilities | decimals of embeddings |
|---|---|---|---|---|
| trusted | as many as the route allows | as many as the route allows | as the route says | as the route says |
| watched | the same | the same: being watched changes no answer | the same | the same |
| throttled | one | half | none | 3 |
| degraded | one | `tokens_degraded` | none | 2 |
| suspended | refused | refused | refused | refused |

What one client was promised (`[[contract]]`) stands in the route's place: `decimals` of log-probabilities and
embeddings, `top_k` alternatives to a token, and with `answer = "label"` the text alone. It never has more alternatives
than the route allows: from those a model's inside can be computed, whatever was promised.
"""

from dataclasses import dataclass
from typing import Literal

from palladion.gate.disclosure import Level
from palladion.policy import ContractPolicy, RoutePolicy

REDUCED_EMBEDDING_DECIMALS = 3
LEAST_EMBEDDING_DECIMALS = 2
# By the route's setting: how many alternatives a token's log-probability comes with, at most. "chosen" shows that of
# the token that was drawn; "never" is not in it.
ALTERNATIVES: dict[Literal["never", "chosen", "top5"], int] = {"chosen": 0, "top5": 5}


@dataclass(frozen=True)
class Terms:
    """What one request is given: answers, tokens of each, alternatives to a token (None: no log-probabilities)."""

    choices_max: int
    tokens_max: int
    alternatives: int | None
    decimals: int
    reasoning: bool


def terms(route: RoutePolicy, level: Level, own: ContractPolicy | None = None) -> Terms:
    """What a level of disclosure means on a route, for a client that was promised what `own` says."""
    contract = Terms(
        choices_max=route.choices_max,
        tokens_max=route.tokens_max,
        alternatives=_alternatives(route, own),
        decimals=route.decimals if own is None or own.decimals < 0 else own.decimals,
        reasoning=route.reasoning,
    )
    if level == "contract":
        return contract
    reduced = level == "reduced"
    return Terms(
        choices_max=1,
        tokens_max=max(1, route.tokens_max // 2) if reduced else min(route.tokens_max, route.tokens_degraded),
        alternatives=None,
        decimals=min(contract.decimals, REDUCED_EMBEDDING_DECIMALS if reduced else LEAST_EMBEDDING_DECIMALS),
        reasoning=False,
    )


def _alternatives(route: RoutePolicy, own: ContractPolicy | None) -> int | None:
    """How many alternatives a token's log-probability comes with; None for no log-probabilities."""
    allowed = ALTERNATIVES.get(route.logprobs)
    if allowed is None or own is None:
        return allowed
    if own.answer == "label":
        return None
    return allowed if own.top_k <= 0 else min(allowed, own.top_k)
