"""A tiny encoder in ONNX with its tokenizer: each token has a fixed vector. Needs neither torch nor a download."""

import json
from functools import cache
from typing import Any

import numpy as np

from palladion.watch.text.encoder import SentenceEncoder

WIDTH = 24
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = ("river", "stone", "market", "engine", "letter", "garden", "winter", "copper", "signal", "harbour", "lesson")
PIECES = (*SPECIAL, *LETTERS, *(f"##{letter}" for letter in LETTERS), *".,:?![]'0123456789", *WORDS, "##ing")


def tokenizer(**changes: Any) -> bytes:
    """A tokenizer.json; `changes` are of its parts."""
    document: dict[str, Any] = {
        "version": "1.0",
        "truncation": {"max_length": 32, "strategy": "LongestFirst", "stride": 0, "direction": "Right"},
        "padding": None,
        "added_tokens": [
            {"id": PIECES.index(name), "content": name, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False, "special": True}
            for name in SPECIAL
        ],
        "normalizer": {
            "type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None,
            "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": "[CLS]", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "[SEP]", "type_id": 0}},
            ],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {
                name: {"id": name, "ids": [PIECES.index(name)], "tokens": [name]} for name in ("[CLS]", "[SEP]")
            },
        },
        "decoder": None,
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": {piece: number for number, piece in enumerate(PIECES)},
        },
    }  # fmt: skip
    return json.dumps(document | changes).encode()


def network(
    *,
    table: Any = None,
    names: tuple[str, ...] = ("input_ids", "attention_mask"),
    tokens: int | str = "tokens",
    pooled: bool = False,
) -> bytes:
    """An ONNX file that looks each token up in `table` (tokens, width); with `pooled` it gives the mean itself."""
    from onnx import TensorProto, helper, numpy_helper

    if table is None:
        table = np.random.default_rng(7).standard_normal((len(PIECES), WIDTH))
    sizes: list[int | str] = ["texts", tokens]
    nodes = [helper.make_node("Gather", ["table", names[0]], ["states"])]
    if pooled:
        nodes.append(helper.make_node("ReduceMean", ["states", "axis"], ["mean"], keepdims=0))
    shape = ["texts", np.shape(table)[1]] if pooled else [*sizes, np.shape(table)[1]]
    graph = helper.make_graph(
        nodes,
        "encoder",
        [helper.make_tensor_value_info(name, TensorProto.INT64, sizes) for name in names],
        [helper.make_tensor_value_info("mean" if pooled else "states", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.asarray(table, np.float32), "table")]
        + ([numpy_helper.from_array(np.array([1]), "axis")] if pooled else []),
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    data: bytes = made.SerializeToString()
    return data


@cache
def encoder() -> SentenceEncoder:
    """The encoder, opened."""
    return SentenceEncoder(network(), tokenizer())
