"""Fuzzes answers by the Open Inference Protocol: `python -m tests.gate.hostile.fuzz.fuzz_open_inference_answer`.

The first byte of an input says what the rest is: JSON, JSON with binary tensors behind it, whose length are the next
two bytes, or a model's description.
"""

from pathlib import Path

from tests.seal.fuzz.run import fuzz, instrumented

with instrumented(__name__):
    import numpy as np

    from palladion.errors import FormatError
    from palladion.gate.protocols.open_inference_upstream import Described, OpenInferenceUpstream, read_metadata
    from palladion.gate.protocols.tensors import DTYPES, HEADER_LENGTH
    from palladion.model.run import STRING, Port

CORPUS = Path(__file__).parent / "corpus" / "open_inference_answer"
ROWS = 2
OUTPUTS = (Port("p", "float32", (None, 3)), Port("n", "int8", (None,)), Port("t", "string", (None,)))
OTHER = Port("hidden", "float32", (None, 2))
DESCRIBED = Described(
    (Port("x", "float32", (None, 2)),),
    (*OUTPUTS, OTHER),
    {
        ("input", "x"): "FP32", ("output", "p"): "FP32", ("output", "n"): "INT8", ("output", "t"): "BYTES",
        ("output", "hidden"): "FP32",
    },
)  # fmt: skip
CODEC = OpenInferenceUpstream("m", DESCRIBED, wanted=[port.name for port in OUTPUTS], binary=True)
FLOATS = OpenInferenceUpstream("m", DESCRIBED, wanted=["p"], binary=True)  # whose usual answer is read in one go


def one_input(data: bytes) -> None:
    """An answer is exactly the outputs that were asked for, of their types and finite; or it is none."""
    mode, rest = data[:1], data[1:]
    if mode == b"m":
        _description(rest)
        return
    headers = []
    if mode == b"b":
        headers, rest = [(HEADER_LENGTH, str(int.from_bytes(rest[:2], "big")).encode())], rest[2:]
    for codec, names in ((CODEC, ["p", "n", "t"]), (FLOATS, ["p"])):
        try:
            outputs = codec.decode_answer(rest, headers, ROWS)
        except FormatError:
            continue
        assert sorted(outputs) == sorted(names)
        for port in OUTPUTS:
            if port.name not in outputs:
                continue
            array = outputs[port.name]
            assert array.shape == (ROWS, *port.shape[1:])
            if port.dtype == STRING:
                "".join(array.tolist()).encode()  # no half of a surrogate
            else:
                assert array.dtype == np.dtype(port.dtype)
                assert np.isfinite(array).all()


def _description(body: bytes) -> None:
    try:
        described = read_metadata(body)
    except FormatError:
        return
    names = [("input", port.name) for port in described.inputs] + [("output", port.name) for port in described.outputs]
    assert names == list(described.datatypes)
    assert all(DTYPES[described.datatypes[name]] for name in names)


if __name__ == "__main__":
    fuzz(one_input, str(CORPUS))
