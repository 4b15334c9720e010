"""Fuzzes JSON by paths: `python -m tests.gate.hostile.fuzz.fuzz_json_paths -max_total_time=60`.

The first byte of an input says which form the rest is read in: rows, columns, or an answer of an upstream.
"""

from pathlib import Path

from tests.seal.fuzz.run import fuzz, instrumented

with instrumented(__name__):
    from palladion.errors import FormatError
    from palladion.gate.problems import Problem
    from palladion.gate.protocols.json_paths import JsonPaths, JsonPathsUpstream
    from palladion.policy import RoutePolicy
    from palladion.policy.tensors import FixedPolicy, TensorPolicy
    from tests.gate.hostile.fuzz.checks import ROWS_MAX, check_asked, check_refusal

CORPUS = Path(__file__).parent / "corpus" / "json_paths"


def _route(*paths: str) -> RoutePolicy:
    x, n, t = paths
    tensors = (
        TensorPolicy(name="x", type="float32", shape=(2,), path=x),
        TensorPolicy(name="n", type="int8", path=n),
        TensorPolicy(name="t", type="string", shape=(1,), path=t),
    )
    fixed = (FixedPolicy(path="$.options.name", value="a"),)
    return RoutePolicy(model="m", protocol="json", upstream_path="/p", inputs=tensors, outputs=tensors, fixed=fixed)


ROUTES = {
    b"r": _route("$.rows[*].x", "$.rows[*].more[0]", "$.rows[*]['a text']"),
    b"c": _route("$.x[*]", "$.n[*]", "$.t[0][*]"),
}
UPSTREAMS = {mode: JsonPathsUpstream(route) for mode, route in ROUTES.items()}
CLIENTS = {
    mode: JsonPaths(route, UPSTREAMS[mode].inputs, UPSTREAMS[mode].outputs, rows_max=ROWS_MAX)
    for mode, route in ROUTES.items()
}


def one_input(data: bytes) -> None:
    """A question is the same one after it was written for the upstream; an answer is whole, or is none."""
    mode, body = data[:1], data[1:]
    if mode in b"RC" and mode:
        _answer(mode.lower(), body)
    elif mode in CLIENTS:
        _question(mode, body)


def _question(mode: bytes, body: bytes) -> None:
    try:
        asked = CLIENTS[mode].decode(body, {})
    except Problem as problem:
        check_refusal(problem)
        return
    check_asked(asked)
    _, sent = UPSTREAMS[mode].encode_request(asked.feeds, asked.rows)
    again = CLIENTS[mode].decode(sent.body, {})
    assert again.rows == asked.rows
    for name, array in asked.feeds.items():
        assert array.tobytes() == again.feeds[name].tobytes() or array.tolist() == again.feeds[name].tolist()


def _answer(mode: bytes, body: bytes) -> None:
    try:
        outputs = UPSTREAMS[mode].decode_answer(body, [], 2)
    except FormatError:
        return
    assert {name: array.shape for name, array in outputs.items()} == {"x": (2, 2), "n": (2,), "t": (2, 1)}


if __name__ == "__main__":
    fuzz(one_input, str(CORPUS))
