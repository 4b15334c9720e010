"""A residual network that reads CIFAR-10, and copies of it after so many pictures: with its scores, and with labels.

The thief owns other pictures than the network was trained on (Knockoff Nets, Orekondy et al., CVPR 2019, with the right
pool). One seed: it takes an hour of one core. The network is kept beside this file, so that only copies are made anew.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.mark_subjects import DATA, missing
from bench.report import SEED

Array = NDArray[Any]

TRAINED = 16_000  # of 20,000 pictures; the others are the thief's
HELD_OUT = 2000
BATCH, RATE, MOMENTUM, WEIGHT_DECAY = 128, 0.2, 0.9, 5e-4
SHIFT = 4  # pixels either way
WIDTHS, WIDTHS_OF_COPY = (16, 40, 96, 192), (16, 32, 64, 128)
EPOCHS = 24
QUERIES = {1000: 40, 5000: 16, 10_000: 10}  # and how often a copy sees each
KEPT = Path(__file__).parent / "build" / "cifar10.npz"


@dataclass(frozen=True, eq=False)
class Pictures:
    """The network, how many of the test pictures it names rightly, and what a thief and a judge have."""

    network: Any
    accuracy: float
    owned: Array  # (4000, 3, 32, 32), from −1 to 1
    held_out: Array

    def scores(self, pictures: Array) -> Array:
        """Probabilities (n, 10)."""
        return _scores(self.network, pictures)

    def copied(self, queries: int, *, labels: bool, seed: int = SEED) -> float:
        """The fidelity of a copy on the held-out pictures after so many queries.

        Who has fewer pictures mirrors and shifts them: each such picture is a query too.
        """
        import torch

        generator = np.random.default_rng((seed, queries))
        rounds = [generator.permutation(len(self.owned)) for _ in range(-(-queries // len(self.owned)))]
        asked = np.concatenate([self.owned[rounds[0]], *(_moved(self.owned[o], generator) for o in rounds[1:])])
        asked = asked[:queries]
        answers = self.scores(asked)
        if labels:
            answers = np.eye(10, dtype=np.float32)[answers.argmax(axis=1)]
        torch.manual_seed(seed % 2**32)
        copy = network_of(WIDTHS_OF_COPY)
        train(copy, asked, answers, epochs=QUERIES[queries], seed=seed)
        said, truth = _scores(copy, self.held_out), self.scores(self.held_out)
        return float((said.argmax(axis=1) == truth.argmax(axis=1)).mean())


def stolen_pictures(told: Callable[[str], None] = lambda text: None) -> Pictures | None:
    """The network, trained or as it was kept; None where the pictures or torch are not at hand."""
    if missing() or not (DATA / "cifar10_train_20k.npz").exists():
        return None
    import torch

    torch.manual_seed(SEED % 2**32)
    pictures, labels = _pictures("cifar10_train_20k.npz")
    test, truth = _pictures("cifar10_test_4k.npz")
    network = network_of(WIDTHS)
    if KEPT.exists():
        with np.load(KEPT) as kept:
            network.load_state_dict({name: torch.from_numpy(kept[name]) for name in kept.files})
    else:
        train(network, pictures[:TRAINED], np.eye(10, dtype=np.float32)[labels[:TRAINED]], epochs=EPOCHS, told=told)
        KEPT.parent.mkdir(exist_ok=True)
        np.savez(KEPT, **{name: value.numpy() for name, value in network.state_dict().items()})
    accuracy = float((_scores(network, test).argmax(axis=1) == truth).mean())
    return Pictures(network, accuracy, pictures[TRAINED:], test[:HELD_OUT])


def network_of(widths: tuple[int, int, int, int]) -> Any:
    """Residual blocks at 16, 8 and 4 pixels."""
    import torch

    class Residual(torch.nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.inner = torch.nn.Sequential(*_layer(width, width, 1), *_layer(width, width, 1))

        def forward(self, seen: Any) -> Any:
            return seen + self.inner(seen)

    first, *later = widths
    layers, before = _layer(3, first, 1), first
    for width in later:
        layers += [*_layer(before, width, 2), Residual(width)]
        before = width
    head = [torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(before, 10)]
    return torch.nn.Sequential(*layers, *head)


def train(
    network: Any,
    pictures: Array,
    answers: Array,
    *,
    epochs: int,
    seed: int = SEED,
    told: Callable[[str], None] = lambda text: None,
) -> None:
    """Cross entropy with answers (n, 10), pictures mirrored and shifted at random, a rate that rises and falls."""
    import torch

    generator = np.random.default_rng((seed, 1))
    optimizer = torch.optim.SGD(network.parameters(), RATE, MOMENTUM, nesterov=True, weight_decay=WEIGHT_DECAY)
    steps = epochs * -(-len(pictures) // BATCH)
    step = 0
    network.train()
    for epoch in range(epochs):
        order = generator.permutation(len(pictures))
        total = 0.0
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            step += 1
            optimizer.param_groups[0]["lr"] = RATE * min(4 * step / steps, (steps - step) / (0.75 * steps) + 1e-3)
            seen = torch.from_numpy(_moved(pictures[chosen], generator)).to(memory_format=torch.channels_last)
            loss = torch.nn.functional.cross_entropy(network(seen), torch.from_numpy(answers[chosen]))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += float(loss.detach()) * len(chosen)
        told(f"epoch {epoch + 1} of {epochs}: loss {total / len(pictures):.3f}")


def _layer(before: int, after: int, stride: int) -> list[Any]:
    import torch

    convolution = torch.nn.Conv2d(before, after, 3, stride, 1, bias=False)
    return [convolution, torch.nn.BatchNorm2d(after), torch.nn.ReLU(inplace=True)]


def _scores(network: Any, pictures: Array) -> Array:
    import torch

    network.eval()
    with torch.inference_mode():
        parts = [
            torch.softmax(network(torch.from_numpy(pictures[at : at + 500])), dim=1).numpy()
            for at in range(0, len(pictures), 500)
        ]
    return np.concatenate(parts)


def _moved(pictures: Array, generator: np.random.Generator) -> Array:
    """Each picture mirrored by chance, and shifted by up to `SHIFT` pixels."""
    padded = np.pad(pictures, ((0, 0), (0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT)), mode="reflect")
    down, right = generator.integers(0, 2 * SHIFT + 1, (2, len(pictures)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, pictures.shape[2:], axis=(2, 3))
    found = windows[np.arange(len(pictures)), :, down, right]
    mirrored = generator.random(len(pictures)) < 0.5
    found[mirrored] = found[mirrored, ..., ::-1]
    return np.ascontiguousarray(found)


def _pictures(name: str) -> tuple[Array, Array]:
    with np.load(DATA / name) as held:
        pictures, labels = held["x"], held["y"].astype(np.int64)
    return np.ascontiguousarray(pictures.transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1), labels
