"""How much of a network that reads CIFAR-10 do copies get, after so many pictures, with its scores and with labels?

`--long` trains a residual network until it names at least 80 % of the test pictures (an hour of one core, kept beside
this file) and copies of it after 1,000, 5,000 and 10,000 queries. Without, a small network is trained for a minute, and
what it reached is said: copies of a bad network are easy to make, so that its figures are no others than that.
"""

import sys

import numpy as np
from numpy.typing import NDArray

from bench.mark_subjects import DATA, missing
from bench.report import SEED, Report, main
from bench.stolen_pictures import QUERIES, Pictures, network_of, stolen_pictures, train

LONG = "--long"
ACCURACY = 0.8
SMALL_WIDTHS, SMALL_TRAINED, SMALL_EPOCHS = (8, 16, 32, 48), 4000, 4
SMALL_QUERIES, SMALL_COPY_EPOCHS = (300, 1000), 6
SMOKE_QUERIES, SMOKE_TRAINED, SMOKE_EPOCHS = (300,), 500, 2
HELD_OUT = 1000


def measure(report: Report) -> None:
    """Fill the report."""
    if missing() or not (DATA / "cifar10_train_20k.npz").exists():
        report.skip("needs the torch extra and the pictures of the shared folder")
        return
    if report.quick:
        _small(report)
        return
    stolen = stolen_pictures(lambda text: print(text, file=sys.stderr, flush=True))
    if stolen is None:
        report.skip("needs the torch extra and the pictures of the shared folder")
        return
    report.at_least("accuracy of the network", stolen.accuracy, "of 1", ACCURACY, reference="4,000 test pictures")
    for queries in QUERIES:
        for way, labels in (("scores", False), ("labels", True)):
            _add(report, stolen, queries, way, stolen.copied(queries, labels=labels))


def _small(report: Report) -> None:
    """A small network, and copies of the same shape."""
    import torch

    pictures, labels = _read("cifar10_train_20k.npz")
    test, truth = _read("cifar10_test_4k.npz")
    torch.manual_seed(SEED % 2**32)
    network = network_of(SMALL_WIDTHS)
    taught, epochs = (SMOKE_TRAINED, SMOKE_EPOCHS) if report.smoke else (SMALL_TRAINED, SMALL_EPOCHS)
    train(network, pictures[:taught], np.eye(10, dtype=np.float32)[labels[:taught]], epochs=epochs)
    owned, held_out = pictures[16_000:], test[:HELD_OUT]
    stolen = Pictures(network, 0.0, owned, held_out)
    accuracy = float((stolen.scores(held_out).argmax(axis=1) == truth[:HELD_OUT]).mean())
    words = f"chance 0.1; {LONG} reaches {ACCURACY} and more"
    report.add("accuracy that the small network reached", accuracy, "of 1", reference=words)
    copy_epochs = SMOKE_EPOCHS if report.smoke else SMALL_COPY_EPOCHS
    for queries in SMOKE_QUERIES if report.smoke else SMALL_QUERIES:
        for way in ("scores", "labels"):
            answers = stolen.scores(owned[:queries])
            if way == "labels":
                answers = np.eye(10, dtype=np.float32)[answers.argmax(axis=1)]
            copy = network_of(SMALL_WIDTHS)
            train(copy, owned[:queries], answers, epochs=copy_epochs)
            said = Pictures(copy, 0.0, owned, held_out).scores(held_out)
            found = float((said.argmax(axis=1) == stolen.scores(held_out).argmax(axis=1)).mean())
            _add(report, stolen, queries, way, found)


def _add(report: Report, stolen: Pictures, queries: int, way: str, found: float) -> None:
    half = 1.96 * (found * (1 - found) / len(stolen.held_out)) ** 0.5
    truth = stolen.scores(stolen.held_out).argmax(axis=1)
    common = float(np.bincount(truth, minlength=10).max() / len(truth))
    reference = f"± {half:.3f} by the pictures it is judged on; its commonest answer is {common:.3f}; one seed"
    report.add(f"fidelity after {queries:,} {way}", found, "of 1", reference=reference)


def _read(name: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    with np.load(DATA / name) as held:
        pictures, labels = held["x"], held["y"].astype(np.int64)
    return np.ascontiguousarray(pictures.transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1), labels


if __name__ == "__main__":
    given = [argument for argument in sys.argv[1:] if argument != LONG]
    quick = [] if LONG in sys.argv[1:] or "--quick" in given else ["--quick"]
    main("cifar_extraction", __doc__ or "", measure, [*given, *quick])
