"""Sound files that a scan once took for something else."""

import io
import json
import pickle
import random
import re
from collections import ChainMap, OrderedDict, UserDict
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from tests.scan.corpus.benign import gguf_bytes
from tests.scan.corpus.hidden import export, records
from tests.scan.corpus.models import saved_model
from tests.scan.corpus.sample import Sample, name, start, text


def benign_more() -> list[Sample]:
    """Every such file."""
    makers = (_plain, _judged, _files, _texts, _sklearn, _torch, _listed)
    return [sample for maker in makers for sample in maker()]


def _plain() -> Iterator[Sample]:
    values: dict[str, Any] = {
        "expression": re.compile("a+", re.IGNORECASE), "random": random.Random(3), "chain": ChainMap({"a": 1}),
        "user": UserDict(a=1), "range": range(5), "error": ValueError("x"), "poly": np.poly1d([1, 2]),
        "generic": list[int],
    }  # fmt: skip
    for label, value in values.items():
        for protocol in (0, 2, 4):
            yield Sample(f"more-{label}-{protocol}.pkl", pickle.dumps(value, protocol), "pickle")
    yield Sample("more-graph.pb", saved_model(("Const", "EnsureShape", "MatMul")), "model")


def _judged() -> Iterator[Sample]:
    """Methods of text and classes with arguments, which estimators and layers keep for later."""
    for protocol in (0, 2, 4):
        for label, value in {
            "method": {"tokenizer": str.split}, "partial": partial(OrderedDict, a=1), "zone": ZoneInfo("Europe/Rome"),
        }.items():  # fmt: skip
            yield Sample(f"more-{label}-{protocol}.pkl", pickle.dumps(value, protocol), "pickle")


def _files() -> Iterator[Sample]:
    """Of formats that are mere data."""
    yield Sample("more-events", records(b"\x09" + bytes(30)) + records(b"\x09" + bytes(8)), "model")
    yield Sample("more-model.ubj", b"{L" + bytes(7) + b"\x01aSU\x03abc}", "model")
    yield Sample("more-export.pt2", export({}), "torch")
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1L,), }\n"
    yield Sample("more-python2.npy", b"\x93NUMPY\x01\x00" + bytes([len(header), 0]) + header + bytes(8), "numpy")
    yield Sample("more-picture.webp", b"RIFF" + bytes(4) + b"WEBPVP8 ", "text")
    yield Sample("more-picture.bmp", b"BM" + (30).to_bytes(8, "little") + bytes(20), "text")
    yield Sample("text/cast.txt", b"cast\nfoo\nbar\n", "text")
    yield Sample("text/cos.txt", b"cos\nsin\ntan\n", "text")
    template = (
        "{% for m in messages %}{{ '<|system|>\\n' + m['content'] }}{% if m.a == '<|import|>' %}{% endif %}{% endfor %}"
    )
    yield Sample("text/tags.json", json.dumps({"chat_template": template}).encode(), "text")


def _texts() -> Iterator[Sample]:
    yield Sample(
        "text/vocab.txt", b"[PAD]\n<script\nimport\nos\nsystem\n##eval\nsubprocess\nfrom\nos\nimport\nsystem\n", "text"
    )
    yield Sample("text/latin.txt", "un café au lait, s'il vous plaît\n".encode("latin-1"), "text")
    yield Sample("text/wide.txt", "hello\n".encode("utf-16"), "text")
    yield Sample("text/tags.yaml", b"a: !!str 50%25\nb: !!int 5\nc: [!!str x, 20%20]\n", "text")
    yield Sample("text/merges.json", b'{"model": {"merges": ["<script >", "eval ("]}}', "text")
    yield Sample("text/target.yaml", b"_target_: transformers.AutoModel\ntarget: 5\ntrust_remote_code: no\n", "text")
    yield Sample(
        "text/model.yaml", b"a:\n  - !new:torch.nn.Linear\nmode: train\nnote: |\n  from here, import\n", "text"
    )
    yield Sample("text/note.md", b"Note: a text.\n\n```python\nfrom os import path\n```\n", "text")
    yield Sample("text/words.md", b"# Model\n\nUse os.path.join and subprocess with care.\nA = B holds.\n", "text")
    if find_spec("gguf") is not None:
        yield Sample("more-tokens.gguf", gguf_bytes(), "model")


def _sklearn() -> Iterator[Sample]:
    if find_spec("sklearn") is None:
        return
    from sklearn.compose import make_column_selector
    from sklearn.feature_selection import SelectKBest, chi2, mutual_info_classif
    from sklearn.metrics import accuracy_score, f1_score, make_scorer

    for label, value in {
        "select": SelectKBest(), "chi2": SelectKBest(chi2), "information": SelectKBest(mutual_info_classif),
        "scorer": make_scorer(f1_score), "metric": accuracy_score, "columns": make_column_selector("a"),
    }.items():  # fmt: skip
        yield Sample(f"more-sklearn-{label}.pkl", pickle.dumps(value), "sklearn")


def _torch() -> Iterator[Sample]:
    if find_spec("torch") is None:
        return
    import torch

    for protocol in (2, 3, 4, 5):
        buffer = io.BytesIO()
        torch.save({"w": torch.ones(3)}, buffer, _use_new_zipfile_serialization=False, pickle_protocol=protocol)
        yield Sample(f"more-legacy-{protocol}.pt", buffer.getvalue(), "torch")
        yield Sample(f"more-tensor-{protocol}.pkl", pickle.dumps(torch.ones(5000), protocol), "torch")
    buffer = io.BytesIO()
    torch.save(torch.nn.Linear(2, 2), buffer, _use_new_zipfile_serialization=False)
    yield Sample("more-legacy-model.pt", buffer.getvalue(), "torch")


def _listed() -> Iterator[Sample]:
    """What pandas writes, by hand."""
    day = name("pandas._libs.tslibs.offsets", "Day") + b"K\x01\x89\x86R"
    yield Sample("more-offset.pkl", start(4) + day + b".", "pandas")
    kind = name("pandas", "PeriodDtype") + text("D") + b"\x85R"
    yield Sample("more-period.pkl", start(4) + kind + b".", "pandas")
    yield Sample("more-array.pkl", start(4) + name("pandas.arrays", "StringArray") + b")\x81.", "pandas")
