"""Private training of torch modules: what one row may change, and which modules have rows of their own."""

from typing import Any, Literal

import numpy as np
import pytest

from palladion.errors import ConflictError, FormatError
from palladion.private.dp.modules import Training, check_module, fit, train_dp
from palladion.private.dp.randomness import Seeded
from palladion.private.dp.verify import verify_statement

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'palladion[torch]'")
pytest.importorskip("opacus", reason="Opacus is not installed: pip install 'palladion[dp]'")
pytestmark = [pytest.mark.torch, pytest.mark.slow]

ROWS, FEATURES, CLASSES = 400, 4, 3


class _Every:
    """All rows in each step, and noise that is none."""

    kind: Literal["cryptographic", "seeded"] = "seeded"

    def gaussian(self, shape: tuple[int, ...]) -> Any:
        return np.zeros(shape)

    def sample(self, rows: int, rate: float) -> Any:
        return np.arange(rows)


def _data(rows: int = ROWS) -> tuple[Any, Any]:
    generator = np.random.default_rng(1)
    labels = generator.integers(0, CLASSES, rows)
    inputs = generator.standard_normal((rows, FEATURES)) * 0.3
    inputs[np.arange(rows), labels] += 2
    return torch.tensor(inputs, dtype=torch.float32), torch.tensor(labels)


def _network(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(FEATURES, 8), torch.nn.Tanh(), torch.nn.Linear(8, CLASSES))


def _weights(model: Any) -> Any:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def _fit(rows: Any, labels: Any, *, randomness: Any = None, noise: float = 0.0, **changes: Any) -> Any:
    training = Training(**({"steps": 1, "batch_rows": len(rows), "momentum": 0.0, "ema": 0.0} | changes))
    return fit(_network(), rows, labels, training=training, noise_multiplier=noise, randomness=randomness or _Every())


def test_a_private_module_learns_and_says_what_it_spent() -> None:
    rows, labels = _data()
    before = _network()
    training = Training(steps=60, batch_rows=200, rate=1.0)
    model, statement = train_dp(before, (rows, labels), epsilon=4.0, delta=1e-4, training=training)
    assert (model(rows).argmax(dim=1) == labels).float().mean() > 0.9
    assert float(statement.epsilon) <= 4.0
    assert (statement.mechanism, statement.accountant, statement.sampling_rate) == ("dp-sgd", "pld", "0.5")
    assert float(statement.epsilon) <= float(statement.epsilon_rdp)
    assert verify_statement(statement).recomputed == pytest.approx(float(statement.epsilon), rel=1e-3)
    assert type(model) is type(before)
    assert torch.equal(_weights(before), _weights(_network()))


@pytest.mark.parametrize("scale", [0.01, 1.0, 1e4])
def test_one_row_moves_a_step_by_no_more_than_its_clipping(scale: float) -> None:
    rows, labels = _data(30)
    rows[-1] *= scale
    moved = [
        (_weights(_fit(rows[:count], labels[:count], rate=1.0, clipping=0.2)) - _weights(_network())) * count
        for count in (30, 29)
    ]
    assert (moved[0] - moved[1]).norm() <= 0.2 * 1.0001


def test_what_is_not_clipped_is_an_ordinary_step() -> None:
    rows, labels = _data(50)
    trained = _fit(rows, labels, rate=0.1, clipping=1e6, at_once=7)
    plain = _network()
    torch.nn.functional.cross_entropy(plain(rows), labels).backward()
    expected = torch.cat([(p - 0.1 * p.grad).detach().flatten() for p in plain.parameters()])
    assert torch.allclose(_weights(trained), expected, atol=1e-6)


def test_views_of_a_row_are_one_row() -> None:
    rows, labels = _data(40)
    once = _fit(rows, labels, clipping=0.5)
    twice = _fit(rows, labels, clipping=0.5, views=2, augment=lambda inputs: inputs)
    assert torch.allclose(_weights(once), _weights(twice), atol=1e-6)


def test_noise_is_as_wide_as_its_multiplier_says() -> None:
    rows, labels = _data(20)
    plain = _weights(_fit(rows, labels, rate=1.0, clipping=0.5))
    moved = torch.stack(
        [
            20 * (_weights(_fit(rows, labels, rate=1.0, clipping=0.5, noise=3.0, randomness=_Noisy(seed))) - plain)
            for seed in range(40)
        ]
    )
    assert float(moved.std()) == pytest.approx(3.0 * 0.5, rel=0.1)


class _Noisy(_Every):
    def __init__(self, seed: int) -> None:
        self._seeded = Seeded(np.random.default_rng(seed))

    def gaussian(self, shape: tuple[int, ...]) -> Any:
        return self._seeded.gaussian(shape)


def test_a_step_without_rows_is_noise_alone() -> None:
    rows, labels = _data(20)

    class Nobody(_Every):
        def sample(self, rows: int, rate: float) -> Any:
            return np.zeros(0, np.intp)

    assert torch.equal(_weights(_fit(rows, labels, randomness=Nobody())), _weights(_network()))


def test_a_data_set_of_torch_will_do() -> None:
    rows, labels = _data(50)
    data = torch.utils.data.TensorDataset(rows, labels)
    training = Training(steps=2, batch_rows=50)
    _, statement = train_dp(_network(), data, epsilon=4.0, delta=1e-4, training=training)
    assert (statement.rows, statement.accountant) == (50, "analytic-gaussian")


@pytest.mark.parametrize(
    ("model", "told"),
    [
        (lambda: torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4)), "1 is batch normalisation"),
        (lambda: torch.nn.BatchNorm1d(4).requires_grad_(False), "batch normalisation"),
        (lambda: torch.nn.LSTM(4, 4), "cannot be trained privately"),
        (lambda: torch.nn.Linear(4, 4).requires_grad_(False), "no parameter"),
    ],
)
def test_a_module_whose_rows_have_no_gradient_of_their_own_is_refused(model: Any, told: str) -> None:
    with pytest.raises(ConflictError, match=told):
        check_module(model().train())


def test_a_parameter_that_the_outputs_do_not_depend_on_is_refused() -> None:
    class Lonely(torch.nn.Module):  # type: ignore[name-defined,misc,unused-ignore]
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = torch.nn.Linear(4, 3), torch.nn.Linear(4, 3)

        def forward(self, rows: Any) -> Any:
            return self.used(rows)

    rows, labels = _data(10)
    with pytest.raises(ConflictError, match="no gradient for each row"):
        fit(Lonely(), rows, labels, training=Training(steps=1), noise_multiplier=0.0, randomness=_Every())


def test_rows_that_are_not_finite_are_refused() -> None:
    rows, labels = _data(10)
    rows[3, 1] = float("nan")
    with pytest.raises(FormatError, match="not finite"):
        train_dp(_network(), (rows, labels), epsilon=1.0, delta=1e-4)


@pytest.mark.parametrize("change", [{"steps": 0}, {"views": 2}, {"clipping": 0.0}, {"ema": 1.0}, {"batch_rows": 0}])
def test_a_training_that_is_none_is_a_mistake(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"training|none|augment"):
        train_dp(_network(), _data(10), epsilon=1.0, delta=1e-4, training=Training(**change))
