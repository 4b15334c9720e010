"""A route of each protocol, some of them at upstreams that are not there: whoever is refused before never notices."""

from palladion.policy import RoutePolicy
from palladion.policy.tensors import TensorPolicy
from tests.gate.gates import MODEL

LATE = "late"  # a model whose upstream is not there yet
TALKING = "llama"
NOWHERE = "http://127.0.0.1:9"  # nobody listens there, and nobody is asked
BY_PATHS = RoutePolicy(
    model=MODEL,
    protocol="json",
    path="/json",
    mode="enforce",
    inputs=(TensorPolicy(name="x", type="float32", shape=(4,), path="$.rows[*]"),),
    outputs=(TensorPolicy(name="probabilities", type="float32", shape=(3,), path="$.scores[*]"),),
)
INFERENCE = RoutePolicy(model=MODEL, protocol="open-inference", mode="enforce")
LATER = RoutePolicy(model=LATE, protocol="open-inference", upstream=NOWHERE, mode="enforce")
LANGUAGE = RoutePolicy(model=TALKING, protocol="openai", upstream=NOWHERE, mode="enforce")
