"""Sound files as real frameworks write them; a framework that is not installed writes none."""

import bz2
import gzip
import io
import json
import lzma
import pickle
import tarfile
import zipfile
import zlib
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from tests.models import onnx_bytes, safetensors_bytes
from tests.scan.corpus.keras_files import hdf5_bytes, keras_archive, keras_config
from tests.scan.corpus.sample import Sample

SEED = 11


def benign() -> list[Sample]:
    """Every sound file of the corpus."""
    makers = (_plain, _numpy, _archives, _texts, _models, _joblib, _sklearn, _torch, _boosted, _hdf5, _gguf, _folders)
    return [sample for maker in makers for sample in maker()]


def _plain() -> Iterator[Sample]:
    values: dict[str, Any] = {
        "dict": {"a": 1, "b": [1.5, None, True], "c": ("x", b"y")},
        "nested": {"layers": [{"w": [0.1] * 50, "n": str(i)} for i in range(50)]},
        "ordered": OrderedDict(a=1, b=2),
        "defaultdict": defaultdict(list, {"a": [1]}),
        "counter": Counter("banana"),
        "deque": deque([1, 2, 3], maxlen=5),
        "sets": {"s": {1, 2}, "f": frozenset({3})},
        "numbers": [2**80, -5, Decimal("1.5"), Fraction(1, 3), 1j],
        "times": [datetime(2026, 1, 1, tzinfo=UTC), date(2026, 1, 1), timedelta(days=3)],
        "bytes": [bytearray(b"abc"), b"x" * 5000],
        "path": Path("weights/model.bin"),
        "vocabulary": {f"token{i}": i for i in range(5000)},
    }
    for name, value in values.items():
        yield Sample(f"plain-{name}.pkl", pickle.dumps(value), "pickle")
    for protocol in range(6):
        yield Sample(f"plain-protocol{protocol}.pkl", pickle.dumps(values["dict"], protocol), "pickle")
    two = pickle.dumps({"first": 1}) + pickle.dumps([2, 3])
    yield Sample("plain-two-streams.pkl", two, "pickle")


def _numpy() -> Iterator[Sample]:
    generator = np.random.default_rng(SEED)
    array = generator.standard_normal((40, 8)).astype(np.float32)
    arrays: dict[str, Any] = {
        "float32": array,
        "int64": np.arange(100),
        "bool": array > 0,
        "fortran": np.asfortranarray(array),
        "text": np.array(["a", "bcd"]),
        "record": np.array([(1, 2.5)], dtype=[("a", "i4"), ("b", "f8", (1,))]),
        "time": np.array(["2026-01-01"], dtype="datetime64[D]"),
        "scalar": np.array(3.0),
    }
    for name, value in arrays.items():
        buffer = io.BytesIO()
        np.save(buffer, value)
        yield Sample(f"{name}.npy", buffer.getvalue(), "numpy")
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}, "text", 3], dtype=object), allow_pickle=True)
    yield Sample("objects.npy", buffer.getvalue(), "numpy")
    for name, save in (("stored", np.savez), ("deflated", np.savez_compressed)):
        buffer = io.BytesIO()
        save(buffer, a=array, b=np.arange(9))
        yield Sample(f"{name}.npz", buffer.getvalue(), "numpy")
    for protocol in (2, 4, 5):
        value = {
            "w": array,
            "s": np.float64(2),
            "o": np.array(["x"], dtype=object),
            "m": np.ma.array([1, 2], mask=[False, True]),
        }
        yield Sample(f"numpy-protocol{protocol}.pkl", pickle.dumps(value, protocol), "numpy")
    states = {"old": np.random.RandomState(3), "new": np.random.default_rng(3), "dtype": np.dtype([("a", "f4")])}
    yield Sample("numpy-random.pkl", pickle.dumps(states), "numpy")


def _archives() -> Iterator[Sample]:
    weights, model = safetensors_bytes(), onnx_bytes()
    for name, method in (("stored", 0), ("deflated", 8), ("bzip2", 12), ("lzma", 14)):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", method) as archive:
            archive.writestr("model.safetensors", weights)
            archive.writestr("config.json", b'{"layers": 2}')
        yield Sample(f"archive-{name}.zip", buffer.getvalue(), "archive")
    for name, mode in (("plain", "w"), ("gz", "w:gz"), ("bz2", "w:bz2"), ("xz", "w:xz")):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
            for member, data in (("model/model.onnx", model), ("model/labels.txt", b"cat\ndog\n")):
                entry = tarfile.TarInfo(member)
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
        yield Sample(f"archive-{name}.tar", buffer.getvalue(), "archive")
    text = pickle.dumps({"a": list(range(2000))})
    for name, squeeze in (("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress), ("zlib", zlib.compress)):
        yield Sample(f"squeezed.pkl.{name}", squeeze(text), "archive")


TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\nYou "
    "are helpful<|im_end|>\\n' }}{% endif %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + "
    "'<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
TOOLS = (
    "{%- macro render(param) -%}{%- if param.type is defined %}{{ param.type | string }}{%- endif -%}{%- endmacro -%}"
    "{%- set ns = namespace(found=false, index=messages|length - 1) %}{%- if tools %}{{- bos_token }}"
    "{%- for tool in tools | selectattr('type', 'equalto', 'function') %}{{- tool.function | tojson(indent=4) }}"
    "{%- for name, value in tool.function.parameters.properties.items() %}{{- name ~ ': ' ~ render(value) }}"
    "{%- endfor %}{%- endfor %}{%- endif %}{%- for message in messages[::-1] %}"
    "{%- set index = (messages|length - 1) - loop.index0 %}"
    "{%- if ns.found and message.content is string and not message.content.startswith('<tool_response>') %}"
    "{%- set ns.index = index %}{%- set content = message.content.split('</think>')[-1].lstrip('\\n') %}"
    "{{- raise_exception('roles must alternate') }}{%- endif %}{%- endfor %}"
    "{{- strftime_now('%d %b %Y') if strftime_now is defined else '26 Jul 2024' }}"
)


def _texts() -> Iterator[Sample]:
    for name, data in {
        "config.json": json.dumps({"architectures": ["LlamaForCausalLM"], "hidden_size": 64}),
        "tokenizer_config.json": json.dumps({"chat_template": TEMPLATE, "eos_token": "</s>", "__type": "AddedToken"}),
        "tools.json": json.dumps(
            {"chat_template": [{"name": "default", "template": TEMPLATE}, {"name": "t", "template": TOOLS}]}
        ),
        "chat_template.jinja": TOOLS,
        "rows.csv": "a,b,c\n1,2,3\n4,5,6\n",
        "rows.jsonl": '{"a": 1}\n{"a": 2}\n',
        "recipe.yaml": "model:\n  layers: 2\n  name: small\ntrain:\n  - lr: 0.1\n",
        "labels.txt": "cat\ndog\nconfig\nimport duties\n",
        "README.md": "# Model\n\n```python\nimport torch\nfrom x import y\n\ndef f():\n    return 1\n```\nfrom us.\n",
        "merges.txt": "#version: 0.2\ni n\nt h\n",
        "pyproject.toml": '[project]\nname = "model"\n',
    }.items():
        yield Sample(f"text/{name}", data.encode(), "text")


def _models() -> Iterator[Sample]:
    for seed in range(3):
        yield Sample(f"weights-{seed}.safetensors", safetensors_bytes(seed), "model")
        yield Sample(f"model-{seed}.onnx", onnx_bytes(seed), "model")
    # a header of 640 bytes begins with what could be the mark of a pickle
    header = b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'.ljust(640)
    yield Sample("header-640.safetensors", (640).to_bytes(8, "little") + header + b"\x00", "model")


def _joblib() -> Iterator[Sample]:
    if find_spec("joblib") is None:
        return
    joblib: Any = import_module("joblib")

    value = {"w": np.arange(5000.0).reshape(50, 100), "o": np.array(["a", None], dtype=object), "n": [np.ones(3, "i2")]}
    for how in (0, 3, ("zlib", 3), ("gzip", 3), ("bz2", 3), ("lzma", 3), ("xz", 3)):
        buffer = io.BytesIO()
        joblib.dump(value, buffer, compress=how)
        label = how if isinstance(how, int) else how[0]
        yield Sample(f"joblib-{label}.joblib", buffer.getvalue(), "joblib")


def _sklearn() -> Iterator[Sample]:
    if find_spec("sklearn") is None:
        return
    joblib: Any = import_module("joblib")
    from sklearn import (
        ensemble,
        linear_model,
        naive_bayes,
        neighbors,
        neural_network,
        pipeline,
        preprocessing,
        svm,
        tree,
    )
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.gaussian_process import GaussianProcessClassifier
    from sklearn.model_selection import GridSearchCV

    generator = np.random.default_rng(SEED)
    rows = generator.standard_normal((60, 4))
    labels = (rows[:, 0] > 0).astype(int)
    models = [
        linear_model.LogisticRegression(), linear_model.SGDClassifier(random_state=1), linear_model.Ridge(),
        ensemble.RandomForestClassifier(5, random_state=1), ensemble.GradientBoostingClassifier(n_estimators=5),
        ensemble.HistGradientBoostingClassifier(max_iter=3), ensemble.IsolationForest(n_estimators=5),
        tree.DecisionTreeRegressor(),
        svm.SVC(probability=False), naive_bayes.GaussianNB(), neighbors.KNeighborsClassifier(algorithm="kd_tree"),
        neural_network.MLPClassifier((4,), max_iter=5), KMeans(2, n_init=1), PCA(2), preprocessing.StandardScaler(),
        GaussianProcessClassifier(), GridSearchCV(linear_model.LogisticRegression(), {"C": [1, 2]}, cv=2),
        pipeline.make_pipeline(preprocessing.StandardScaler(), linear_model.LogisticRegression()),
        CalibratedClassifierCV(naive_bayes.GaussianNB(), cv=2), preprocessing.FunctionTransformer(np.log1p),
    ]  # fmt: skip
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for model in models:
            model.fit(rows, labels)
    for model in models:
        name = type(model).__name__.lower()
        yield Sample(f"sklearn-{name}.pkl", pickle.dumps(model), "sklearn")
    for model in models[3:6]:
        buffer = io.BytesIO()
        joblib.dump(model, buffer, compress=3)
        yield Sample(f"sklearn-{type(model).__name__.lower()}.joblib", buffer.getvalue(), "sklearn")
    vectors = TfidfVectorizer().fit(["a cat sat", "a dog ran"])
    yield Sample("sklearn-tfidf.pkl", pickle.dumps(vectors), "sklearn")


def _torch() -> Iterator[Sample]:
    if find_spec("torch") is None:
        return
    import torch

    torch.manual_seed(SEED)
    net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    optimiser = torch.optim.Adam(net.parameters())
    net(torch.ones(3, 4)).sum().backward()
    optimiser.step()

    def saved(value: Any, **options: Any) -> bytes:
        buffer = io.BytesIO()
        torch.save(value, buffer, **options)
        return buffer.getvalue()

    yield Sample("torch-state.pt", saved(net.state_dict()), "torch")
    yield Sample("torch-legacy.pt", saved(net.state_dict(), _use_new_zipfile_serialization=False), "torch")
    yield Sample("torch-model.pt", saved(net), "torch")
    yield Sample(
        "torch-checkpoint.pt",
        saved({"model": net.state_dict(), "optimiser": optimiser.state_dict(), "epoch": 3}),
        "torch",
    )
    kinds = {
        str(kind).removeprefix("torch."): torch.ones(3).to(kind)
        for kind in (torch.float16, torch.bfloat16, torch.int8, torch.bool)
    }
    yield Sample("torch-kinds.pt", saved(kinds), "torch")
    yield Sample("torch-sparse.pt", saved(torch.eye(3).to_sparse()), "torch")
    yield Sample("torch-tensor.pkl", pickle.dumps(torch.arange(3)), "torch")
    yield Sample("torch-parameter.pt", saved(torch.nn.Parameter(torch.ones(2))), "torch")
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        script: Any = torch.jit.trace(net.eval(), torch.ones(1, 4))  # type: ignore[no-untyped-call]
        buffer = io.BytesIO()
        torch.jit.save(script, buffer)
    yield Sample("torch-script.pt", buffer.getvalue(), "torch")


def _boosted() -> Iterator[Sample]:
    generator = np.random.default_rng(SEED)
    rows = generator.standard_normal((60, 4))
    labels = (rows[:, 0] > 0).astype(int)
    if find_spec("xgboost") is not None:
        import xgboost

        model = xgboost.XGBClassifier(n_estimators=3).fit(rows, labels)
        yield Sample("xgboost.pkl", pickle.dumps(model), "boosted trees")
        yield Sample("xgboost.json", bytes(model.get_booster().save_raw("json")), "boosted trees")
    if find_spec("lightgbm") is not None:
        import lightgbm

        trees = lightgbm.LGBMClassifier(n_estimators=3, verbose=-1, n_jobs=1).fit(rows, labels)
        yield Sample("lightgbm.pkl", pickle.dumps(trees), "boosted trees")
        yield Sample("lightgbm.txt", trees.booster_.model_to_string().encode(), "boosted trees")


def _hdf5() -> Iterator[Sample]:
    if find_spec("h5py") is None:
        return
    layers = [
        {"class_name": "InputLayer", "config": {"batch_input_shape": [None, 4], "name": "input_1"}},
        {
            "class_name": "Dense",
            "config": {"units": 2, "kernel_initializer": {"class_name": "GlorotUniform", "config": {"seed": None}}},
        },
        {"class_name": "Dropout", "config": {"rate": 0.5}},
    ]
    yield Sample(
        "keras2.h5", hdf5_bytes({"class_name": "Sequential", "config": {"name": "s", "layers": layers}}), "keras"
    )
    yield Sample("weights.h5", hdf5_bytes(), "keras")
    yield Sample("keras3.keras", keras_archive(keras_config()), "keras")
    yield Sample("keras3.h5", hdf5_bytes(keras_config()), "keras")


def gguf_bytes(template: str = TEMPLATE) -> bytes:
    """A GGUF file as the gguf package writes it."""
    from gguf import GGUFWriter

    with TemporaryDirectory() as folder:
        path = Path(folder, "m.gguf")
        writer = GGUFWriter(path, "llama")
        writer.add_context_length(64)
        writer.add_token_list(["<s>", "a", "b"])
        writer.add_chat_template(template)
        writer.add_tensor("token_embd.weight", np.ones((3, 32), np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path.read_bytes()


def _gguf() -> Iterator[Sample]:
    if find_spec("gguf") is None:
        return
    yield Sample("model.gguf", gguf_bytes(), "model")
    yield Sample("tools.gguf", gguf_bytes(TOOLS), "model")


def _folders() -> Iterator[Sample]:
    files = {
        "model.safetensors": safetensors_bytes(),
        "config.json": json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}).encode(),
        "tokenizer_config.json": json.dumps(
            {"chat_template": TOOLS, "tokenizer_class": "PreTrainedTokenizerFast"}
        ).encode(),
        "generation_config.json": b'{"do_sample": true}',
        "README.md": b"---\nlicense: mit\n---\n# A model\n",
    }
    yield Sample("folder-llama", family="folder", folder=files)
    adapter = {
        "adapter_model.safetensors": safetensors_bytes(1),
        "adapter_config.json": b'{"peft_type": "LORA", "r": 8, "auto_mapping": null}',
    }
    yield Sample("folder-adapter", family="folder", folder=adapter)
    if find_spec("transformers") is None or find_spec("torch") is None:
        return
    from transformers import BertConfig, BertModel, TrainingArguments

    with TemporaryDirectory() as folder:
        model = BertModel(
            BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=20)
        )
        model.save_pretrained(folder)
        saved = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
        arguments = TrainingArguments(output_dir=folder, use_cpu=True)
        import torch

        buffer = io.BytesIO()
        torch.save(arguments, buffer)
    yield Sample("folder-bert", family="folder", folder={**saved, "training_args.bin": buffer.getvalue()})
