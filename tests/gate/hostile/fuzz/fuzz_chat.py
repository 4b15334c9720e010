"""Fuzzes questions to language models: `python -m tests.gate.hostile.fuzz.fuzz_chat -max_total_time=60`.

The first byte of an input says which path the rest is sent to.
"""

from pathlib import Path
from unittest.mock import Mock

from tests.seal.fuzz.run import fuzz, instrumented

with instrumented(__name__):
    import msgspec

    from palladion.gate.chat.asked import model_of
    from palladion.gate.chat.kinds import KINDS
    from palladion.gate.chat.route import ModelRoute
    from palladion.gate.chat.turn import encoded
    from palladion.gate.problems import Problem
    from palladion.policy import RoutePolicy
    from tests.gate.hostile.fuzz.checks import check_refusal

CORPUS = Path(__file__).parent / "corpus" / "chat"
POLICY = RoutePolicy(
    model="m",
    protocol="openai",
    upstream="http://127.0.0.1:9",
    logprobs="top5",
    logit_bias="any",
    extra_fields=("top_k",),
)
ROUTE = ModelRoute(POLICY, Mock(), None)
PATHS = dict(zip(b"cter", KINDS, strict=True))  # chat, completions, embeddings, responses
FORBIDDEN = {"logits_processor", "guided_decoding_backend", "prompt_logprobs", "chat_template"}


def one_input(data: bytes) -> None:
    """A body is a question, and what is sent on of it is JSON without anything that no policy lets through."""
    kind, body = PATHS.get(data[0] if data else 0), data[1:]
    if kind is None:
        return
    try:
        model_of(body)
        asked = ROUTE.decode(kind, body)
    except Problem as problem:
        check_refusal(problem)
        return
    assert asked.rows >= 1
    sent = msgspec.json.decode(encoded(asked))
    assert FORBIDDEN.isdisjoint(sent)


if __name__ == "__main__":
    fuzz(one_input, str(CORPUS))
