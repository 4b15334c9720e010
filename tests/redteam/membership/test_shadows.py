"""Networks trained in a stack: they learn, from their own rows alone, and as they would without neighbours."""

import numpy as np
import pytest
from numpy.typing import NDArray

from palladion.redteam.membership.shadows import Network, Recipe, member_masks, train_each, train_networks

SEED = 3
QUICK = Recipe(hidden=(16,), epochs=20, batch_rows=16, rate=1e-2)
Rows = NDArray[np.float64]
Labels = NDArray[np.int64]


def _data(count: int = 200) -> tuple[Rows, Labels]:
    generator = np.random.default_rng(SEED)
    rows = generator.standard_normal((count, 5)) * [1, 10, 0.1, 1, 1] + 3
    return rows, (rows[:, 0] + (rows[:, 1] - 3) / 10 > 3).astype(np.int64) + (rows[:, 2] > 3.05)


def _same(one: Network, other: Network) -> bool:
    pairs = zip(one.layers, other.layers, strict=True)
    return all(np.array_equal(a, b) for left, right in pairs for a, b in zip(left, right, strict=True))


def test_networks_learn() -> None:
    rows, labels = _data(600)
    masks = np.tile(np.arange(600) < 400, (2, 1))
    for network in train_networks(rows, labels, masks, classes=3, recipe=QUICK, seeds=[1, 2]):
        logits = network(rows)
        assert logits.shape == (600, 3)
        assert (logits[400:].argmax(axis=1) == labels[400:]).mean() > 0.85


def test_a_network_is_the_same_alone_as_in_a_stack() -> None:
    rows, labels = _data()
    masks = member_masks(20, len(rows), np.random.default_rng(SEED))
    masks[3, 40:] = False  # one that ends much earlier than its neighbours
    stack = train_networks(rows, labels, masks, classes=3, recipe=QUICK, seeds=range(20))
    for index in (0, 3, 17):
        alone = train_networks(rows, labels, masks[index, None], classes=3, recipe=QUICK, seeds=[index])
        assert _same(alone[0], stack[index]), index
    assert not _same(stack[0], stack[1])


def test_rows_that_are_not_in_the_mask_change_nothing() -> None:
    rows, labels = _data()
    mask = np.arange(len(rows))[None] < 100
    recipe = Recipe(hidden=(8,), epochs=3, standardise=False)
    changed = np.where(mask[0], labels, 2 - labels)
    moved = np.where(mask[0][:, None], rows, rows + 1)
    one, other = (
        train_networks(r, y, mask, classes=3, recipe=recipe, seeds=[5])[0]
        for r, y in ((rows, labels), (moved, changed))
    )
    assert _same(one, other)


def test_gradients_are_those_of_the_loss() -> None:
    # one step of Adam moves every weight by the rate, against the sign of its gradient: found here by differences
    rows, labels = _data(32)
    recipe = Recipe(hidden=(4,), epochs=1, batch_rows=32, rate=1e-6, standardise=False)
    mask = np.ones((1, 32), np.bool_)
    tiny = Recipe(hidden=(4,), epochs=1, batch_rows=32, rate=1e-30, standardise=False)
    start, after = (train_networks(rows, labels, mask, classes=3, recipe=r, seeds=[9])[0] for r in (tiny, recipe))
    layers = [[part.astype(np.float64) for part in layer] for layer in start.layers]

    def loss() -> float:
        found = rows
        for index, (weights, bias) in enumerate(layers):
            found = found @ weights + bias
            found = np.maximum(found, 0) if index < len(layers) - 1 else found
        top = found.max(axis=1, keepdims=True)
        wrong = np.log(np.exp(found - top).sum(axis=1)) + top[:, 0] - found[np.arange(32), labels]
        return float(wrong.mean())

    checked = 0
    for layer, moved, began in zip(layers, after.layers, start.layers, strict=True):
        for part, end, begin in zip(layer, moved, began, strict=True):
            for place in np.ndindex(*part.shape):
                kept = part[place]
                part[place] = kept + 1e-5
                up = loss()
                part[place] = kept - 1e-5
                slope = (up - loss()) / 2e-5
                part[place] = kept
                step = float(end[place] - begin[place])
                # steps below float32's grain of a large weight are lost
                if abs(slope) > 1e-3 and step != 0:
                    assert np.sign(step) == -np.sign(slope), (place, slope, step)
                    checked += 1
    assert checked > 15


def test_pictures_are_rows_of_any_shape() -> None:
    pictures = np.random.default_rng(SEED).integers(0, 255, (5000, 2, 2, 1)).astype(np.uint8)
    labels = (pictures[:, 0, 0, 0] > 128).astype(np.int64)
    mask = (np.arange(5000) < 300)[None]
    network = train_networks(pictures, labels, mask, classes=2, recipe=QUICK, seeds=[1])[0]
    logits = network(pictures)
    assert (logits.argmax(axis=1) == labels).mean() > 0.95
    # the same however many are asked at once
    assert np.allclose(logits[4090:4100], network(pictures[4090:4100]), atol=1e-4)
    assert network(pictures[:0]).shape == (0, 2)


def test_weight_decay_keeps_weights_small() -> None:
    rows, labels = _data()
    mask = np.ones((1, len(rows)), np.bool_)
    sizes = [
        float(np.abs(train_networks(rows, labels, mask, classes=3, recipe=recipe, seeds=[1])[0].layers[0][0]).sum())
        for recipe in (QUICK, Recipe(hidden=(16,), epochs=20, batch_rows=16, rate=1e-2, weight_decay=1.0))
    ]
    assert sizes[1] < 0.5 * sizes[0]


def test_each_row_is_in_half_of_the_models() -> None:
    masks = member_masks(8, 301, np.random.default_rng(SEED))
    assert (masks.sum(axis=0) == 4).all()
    assert len({mask.tobytes() for mask in masks}) == 8
    for models in (0, 3):
        with pytest.raises(ValueError, match="halved"):
            member_masks(models, 10, np.random.default_rng(SEED))


def test_a_users_trainer_gets_each_mask() -> None:
    rows, labels = _data(20)
    masks = member_masks(4, 20, np.random.default_rng(SEED))

    def trainer(inputs: Rows, named: Labels, mask: NDArray[np.bool_]):  # type: ignore[no-untyped-def]
        assert inputs is rows
        share = float(named[mask].mean())
        return lambda asked: np.full(len(asked), share)

    scorers = train_each(trainer, rows, labels, masks)
    assert [scorer(rows)[0] for scorer in scorers] == [labels[mask].mean() for mask in masks]


def test_what_does_not_fit_is_refused() -> None:
    rows, labels = _data(20)
    mask = np.ones((1, 20), np.bool_)
    for bad, words in (
        (lambda: train_networks(rows, labels, mask, classes=3, recipe=QUICK, seeds=[1, 2]), "do not fit"),
        (lambda: train_networks(rows, labels, ~mask, classes=3, recipe=QUICK, seeds=[1]), "no rows"),
        (lambda: train_networks(rows, labels, mask, classes=2, recipe=QUICK, seeds=[1]), "2 classes"),
        (lambda: train_networks(rows, labels, mask, classes=3, recipe=Recipe(rate=1e38), seeds=[1]), "NaN"),
        (lambda: Recipe(hidden=(0,)), "below 1"),
    ):
        with pytest.raises(ValueError, match=words), np.errstate(all="ignore"):
            bad()
