"""What does the watch see with activations that it does not see without, and what do they cost?

Networks that read MNIST, run as the gate runs them: the layers that `find_layers` finds, as outputs of the ONNX file.
The same simulated clients (docs/traffic.md) and thieves are weighed by two chains, with the default features and with
those of the layers as well; each has its own thresholds, from calibration clients whom no other row contains.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.detection import CELLS, statistic
from bench.report import Report, interleaved, main
from bench.watch_bank import DATA, Bank, World, make_world, nearness
from palladion.gate.sources.layered import find_layers, open_layered, run_shown, seen, taken
from palladion.model.model import Model
from palladion.model.read import read_memory
from palladion.model.run import Session
from palladion.redteam.learners import Student
from palladion.redteam.people import ask, stranger
from palladion.redteam.thieves import thief
from palladion.watch.conformal import Conformal
from palladion.watch.coverage import Coverage
from palladion.watch.features import FEATURES, REPEATS, Features
from palladion.watch.instruments import Instruments
from palladion.watch.scores import NormalScores

Rows = NDArray[np.float64]
TIMED_ROWS = (1, 32)
SHOWN_CELLS = (
    *("active learning", "pen strokes", "half photographs", "half drawn shapes", "styled pen strokes", "jbda"),
    *("styled jbda", "half active learning", "a quarter photographs", "a tenth photographs", "in distribution"),
)


@dataclass(frozen=True)
class _Size:
    """How much is simulated."""

    rows: int
    styles: int
    fitted: int
    clients: int
    honest: int
    horizon: int
    thieves: int
    alphas: tuple[float, float]  # the smaller one is of the five largest of all clients, or more: one alone is noise


QUICK = _Size(rows=200, styles=40, fitted=120, clients=1600, honest=400, horizon=64, thieves=40, alphas=(0.004, 0.01))
SMOKE = _Size(rows=150, styles=10, fitted=80, clients=1300, honest=100, horizon=64, thieves=3, alphas=(0.004, 0.01))
LONG = _Size(
    rows=1000, styles=300, fitted=600, clients=10_000, honest=4000, horizon=128, thieves=400, alphas=(0.0005, 0.01)
)


@dataclass(frozen=True, eq=False)
class Hosted:
    """A model as the gate runs it; what it answers is what the watch sees: class scores, and what its layers show."""

    session: Session
    model: Model
    layers: tuple[str, ...]
    name: str
    shape: tuple[int, ...]

    @classmethod
    def of(cls, model: Model, shape: tuple[int, ...]) -> "Hosted":
        """Opened with the layers that are found in it."""
        layers = find_layers(model)
        session = open_layered(model, layers)
        return cls(session, model, layers, session.inputs[0].name, shape)

    def answers(self, rows: Rows) -> Rows:
        """What the watch sees (rows, classes + layers * SHOWN) of flat rows (rows, inputs)."""
        fed = rows.astype(np.float32).reshape(len(rows), *self.shape)
        outputs, shown = taken(run_shown(self.session, {self.name: fed}))
        return seen(outputs["scores"].astype(np.float64), shown)


@dataclass(frozen=True, eq=False)
class _Chain:
    """One of the two: how many of the features it looks at, its instruments, and its thresholds by rate."""

    width: int
    instruments: Instruments
    thresholds: Mapping[float, float]

    def statistics(self, features: Rows) -> Rows:
        """The statistic after each query (queries,) with these features (queries, all)."""
        return statistic(self.instruments, self.instruments.score_features(features[:, : self.width]))


def measure(report: Report) -> None:
    """Fill the report."""
    size = SMOKE if report.smoke else QUICK if report.quick else LONG
    generator = np.random.default_rng(report.seed)
    world = make_world(generator, rows=size.rows)
    assert isinstance(world.victim, Student)
    victims = {"one hidden layer": Hosted.of(perceptron(world.victim), (784,))}
    if report.quick:
        report.skip("the network of convolutions: without --quick")
    elif find_spec("torch") is None:
        report.skip("the network of convolutions, which takes torch to train: pip install torch")
    else:
        victims["convolutions"] = Hosted.of(convolutions(generator), (1, 28, 28))
    for name, hosted in victims.items():
        _add_detection(report, name, World(hosted, world.pool, world.foreign), hosted, size, generator)
    for name, hosted in victims.items():
        _add_cost(report, name, hosted, world)


def _add_detection(
    report: Report, name: str, world: World, hosted: Hosted, size: _Size, generator: np.random.Generator
) -> None:
    people = [stranger(world.pool, generator) for _ in range(size.fitted)]
    rows = np.concatenate([ask(world.pool, person, 50, generator).rows for person in people])
    features = Features.fit(rows.astype(np.float64), world.answers(rows), hosted.layers)
    bank = Bank.measure(world, features, size.styles, generator)
    fitted = [found for _, found in bank.clients(size.fitted, size.horizon, generator)]
    calibrating = [found for _, found in bank.clients(size.clients, size.horizon, generator)]
    unseen = [found for _, found in bank.clients(size.honest, size.horizon, generator)]
    widths = len(FEATURES), len(features.words)
    chains = [_chain(features, fitted, calibrating, width, size.alphas) for width in widths]
    for alpha in size.alphas:
        default, layered = ([_caught(chain, client, alpha) for client in unseen] for chain in chains)
        what = f"{name}: honest clients disturbed at {100 * alpha:g} %, with activations"
        beside = f"{100 * np.mean(default):.2f} % without; {size.honest:,} clients of {size.horizon} queries"
        report.add(what, 100 * float(np.mean(layered)), "%", reference=beside)
    for cell in CELLS:
        if cell[0] in SHOWN_CELLS:
            _add_thieves(report, name, world, features, chains, size, generator, cell)


def _chain(
    features: Features, fitted: Sequence[Rows], calibrating: Sequence[Rows], width: int, alphas: Sequence[float]
) -> _Chain:
    narrow = [found[:, :width] for found in fitted]
    coverage = Coverage.draw(features.directions.shape[1], np.random.default_rng(0))
    instruments = Instruments.of_scores(features, NormalScores.fit(np.concatenate(narrow)), coverage, narrow)
    plain = _Chain(width, instruments, {})
    clients = Conformal.fit(np.array([plain.statistics(found).max() for found in calibrating]))
    return _Chain(width, instruments, {alpha: clients.threshold(alpha) for alpha in alphas})


def _caught(chain: _Chain, features: Rows, alpha: float) -> bool:
    return bool(chain.statistics(features).max() >= chain.thresholds[alpha])


def _add_thieves(
    report: Report,
    name: str,
    world: World,
    features: Features,
    chains: Sequence[_Chain],
    size: _Size,
    generator: np.random.Generator,
    cell: tuple[str, str, bool, float, bool, int, float | None],
) -> None:
    what, family, foreign, mix, styled, within, _ = cell
    found = []
    for _ in range(size.thieves):
        rows = world.foreign if foreign else None
        account = thief(family, world.pool, within, generator, foreign=rows, mix=mix, styled=styled).rows
        flat = account.reshape(len(account), -1)
        measured, coordinates = features.measure(flat.astype(np.float64), world.answers(flat))
        measured[:, REPEATS] = nearness(coordinates)
        found.append(measured)
    for alpha in size.alphas:
        default, layered = ([_caught(chain, client, alpha) for client in found] for chain in chains)
        only = int((np.array(layered) & ~np.array(default)).sum()), int((np.array(default) & ~np.array(layered)).sum())
        report.add(
            f"{name}: caught within {within} at {100 * alpha:g} %: {what}, with activations",
            100 * float(np.mean(layered)),
            "%",
            reference=f"{100 * np.mean(default):.0f} % without; {size.thieves} thieves, {only[0]} by this alone, "
            f"{only[1]} by the other alone",
        )


def _add_cost(report: Report, name: str, hosted: Hosted, world: World) -> None:
    """CPU time of one query: the model with and without layers, and what the watch makes of them."""
    plain = open_layered(hosted.model, ())
    flat = world.pool.flat[: max(TIMED_ROWS)].astype(np.float64)
    some = np.resize(flat, (200, flat.shape[1]))
    layered = Features.fit(some, hosted.answers(some), hosted.layers)
    classes = layered.class_means.shape[0]
    default = Features.fit(some, hosted.answers(some)[:, :classes])
    for rows in TIMED_ROWS:
        feeds = {hosted.name: flat[:rows].astype(np.float32).reshape(rows, *hosted.shape)}
        said = hosted.answers(flat[:rows])
        times = interleaved(
            {
                "alone": lambda feeds=feeds: _often(plain.run, feeds),  # type: ignore[misc]
                "shown": lambda feeds=feeds: _often(lambda fed: run_shown(hosted.session, fed), feeds),  # type: ignore[misc]
                "features": lambda rows=rows, said=said: _often(  # type: ignore[misc]
                    lambda fed: default.measure(fed, said[:, :classes]), flat[:rows]
                ),
                "all": lambda rows=rows, said=said: _often(lambda fed: layered.measure(fed, said), flat[:rows]),  # type: ignore[misc]
            },
            repeats=9,
        )
        each = {key: 1e6 * time.median / OFTEN / rows for key, time in times.items()}
        what = f"{name}: CPU a query, {rows} at once"
        report.add(
            f"{what}: the model and {len(hosted.layers)} layers",
            each["shown"],
            "µs",
            reference=f"{each['alone']:.1f} µs the model alone; {times['shown'].noise}",
        )
        report.add(
            f"{what}: features with those of layers",
            each["all"],
            "µs",
            reference=f"{each['features']:.1f} µs the default ones; {times['all'].noise}",
        )


OFTEN = 50


def _often(run: Any, fed: Any) -> None:
    for _ in range(OFTEN):
        run(fed)


def perceptron(student: Student) -> Model:
    """A fitted student (`learners`) as the ONNX file that a user would have of it."""
    from onnx import helper

    first, shift, second, bias = student.layers
    width = len(first)
    offset = student.scaled(np.zeros((1, width)))[0]
    slope = student.scaled(np.ones((1, width)))[0] - offset
    nodes = [
        helper.make_node("Gemm", ["x", "w0", "b0"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "w1", "b1"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["scores"]),
    ]
    weights = {"w0": slope[:, None] * first, "b0": shift + offset @ first, "w1": second, "b1": bias}
    return _model(nodes, weights, ["N", width], second.shape[1])


def convolutions(generator: np.random.Generator) -> Model:
    """Two convolutions and a dense layer, taught on MNIST rows by torch; 3 layers to look at."""
    import torch
    from onnx import helper

    torch.manual_seed(int(generator.integers(2**31)))
    torch.set_num_threads(1)
    with np.load(DATA / "mnist_train_20k.npz") as data:
        chosen = generator.permutation(len(data["x"]))[:10_000]
        pictures = torch.from_numpy(data["x"][chosen].astype(np.float32))[:, None] / 255
        labels = torch.from_numpy(data["y"][chosen].astype(np.int64))
    net = torch.nn.Sequential(
        *(torch.nn.Conv2d(1, 12, 5), torch.nn.ReLU(), torch.nn.MaxPool2d(2)),
        *(torch.nn.Conv2d(12, 24, 5), torch.nn.ReLU(), torch.nn.MaxPool2d(2)),
        *(torch.nn.Flatten(), torch.nn.Linear(384, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10)),
    )
    optimiser = torch.optim.Adam(net.parameters(), 2e-3)
    for _ in range(3):
        for part in torch.randperm(len(pictures)).split(64):  # type: ignore[no-untyped-call]
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(net(pictures[part]), labels[part]).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    taught = [parameter.detach().numpy().astype(np.float64) for parameter in net.parameters()]
    names = ["w0", "b0", "w1", "b1", "w2", "b2", "w3", "b3"]
    weights = dict(zip(names, taught, strict=True))
    weights["w0"] = weights["w0"] / 255  # the file takes pixels
    nodes = [
        helper.make_node("Conv", ["x", "w0", "b0"], ["c0"]),
        helper.make_node("Relu", ["c0"], ["r0"]),
        helper.make_node("MaxPool", ["r0"], ["p0"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["p0", "w1", "b1"], ["c1"]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("MaxPool", ["r1"], ["p1"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["p1"], ["f"]),
        helper.make_node("Gemm", ["f", "w2", "b2"], ["d"], transB=1),
        helper.make_node("Relu", ["d"], ["r2"]),
        helper.make_node("Gemm", ["r2", "w3", "b3"], ["logits"], transB=1),
        helper.make_node("Softmax", ["logits"], ["scores"]),
    ]
    return _model(nodes, weights, ["N", 1, 28, 28], 10)


def _model(nodes: list[Any], weights: Mapping[str, Rows], takes: list[int | str], classes: int) -> Model:
    import onnx
    from onnx import helper, numpy_helper

    real = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("x", real, takes)],
        [helper.make_tensor_value_info("scores", real, ["N", classes])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return read_memory({"digits.onnx": memoryview(made.SerializeToString())})


if __name__ == "__main__":
    main("activations", (__doc__ or "").partition("\n")[0], measure)
