"""What layers show: few numbers of each, the same whatever stands beside, and part of the watch's whole chain."""

import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palladion import canonical
from palladion.errors import FormatError
from palladion.model import safetensors
from palladion.model.tensors import DTYPES, Tensor
from palladion.policy import WatchPolicy
from palladion.watch import activations as module
from palladion.watch.activations import LAYER_FEATURES, LAYERS_MAX, SHOWN, SKETCH, VALUES_MAX, Activations, digest
from palladion.watch.apart import fit_apart
from palladion.watch.calibration_file import decode_calibration, encode_calibration
from palladion.watch.client import STATE_BYTES_MAX, ClientState
from palladion.watch.features import ATYPICAL, FEATURES, SCORES, Features
from palladion.watch.instruments import Episode
from palladion.watch.rows import Rows
from palladion.watch.watch import Asker, Watch

from . import factories, layered

SEED = 31
GENERATOR = np.random.default_rng(SEED)
FIRST = np.maximum(GENERATOR.standard_normal((400, 300)) @ np.diag(GENERATOR.uniform(0.2, 2, 300)), 0)
FITTED = Activations.fit(["a"], digest([FIRST], 400))
DATA = encode_calibration(layered.calibration())


def measure(values: Rows) -> dict[str, Rows]:
    """The features of one layer's values by name."""
    return dict(zip(LAYER_FEATURES, FITTED.measure(digest([values], len(values))).T, strict=True))


@pytest.mark.slow
@given(cuts=st.lists(st.integers(1, 399), max_size=6), size=st.sampled_from([1, 7, SKETCH, SKETCH + 1, 300]))
@settings(max_examples=30, deadline=None)
def test_a_row_shows_the_same_whatever_rows_stand_beside_it(cuts: list[int], size: int) -> None:
    values = FIRST[:, :size].astype(np.float32)
    whole = digest([values, values**2], 400)
    edges = sorted({0, 400, *cuts})

    parts = [digest([values[a:b], values[a:b] ** 2], b - a) for a, b in pairwise(edges)]

    np.testing.assert_array_equal(np.concatenate(parts), whole)
    fitted = Activations.fit(["a", "b"], whole)
    measured = np.concatenate([fitted.measure(part) for part in parts])
    np.testing.assert_array_equal(measured, fitted.measure(whole))


def test_a_layer_shows_its_mean_its_deviation_and_how_much_of_it_is_quiet_or_at_its_end() -> None:
    values = np.array([[0, 0, 2, 4], [1, 1, 1, 1], [0, 0, 0, 0], [3, -3, 0.02, 1]], np.float32)

    shown = digest([values], 4)

    assert shown.shape == (4, SHOWN)
    assert shown[:, 0].tolist() == pytest.approx([1.5, 1, 0, 0.255])
    assert np.exp(shown[:, 1]).tolist() == pytest.approx(values.std(axis=1).tolist(), abs=1e-5)
    assert shown[:, 2].tolist() == [0.75, 1, 1, 0.75]
    np.testing.assert_array_equal(shown[:, 3:7], values)
    assert not shown[:, 7:].any()


@pytest.mark.slow
def test_a_sketch_keeps_how_far_rows_lie_apart() -> None:
    values = np.random.default_rng(SEED).standard_normal((60, 3000))
    sketch = digest([values], 60)[:, 3:]
    pairs = np.triu_indices(60, 1)

    ratios = [(np.square(found[pairs[0]] - found[pairs[1]]).sum(axis=1)) for found in (sketch, values)]

    assert (ratios[0] / ratios[1]).mean() == pytest.approx(1, abs=0.1)
    assert (ratios[0] / ratios[1]).std() < 2.5 / np.sqrt(SKETCH)


def test_of_a_large_layer_a_part_is_looked_at_which_is_the_same_each_time() -> None:
    values = np.random.default_rng(SEED).standard_normal((3, 64, 16, 16)).astype(np.float32)
    changed = values.copy()
    changed.reshape(3, -1)[:, module._drawn(64 * 256).places] = 0

    assert len(module._drawn(64 * 256).places) == module.SAMPLED
    np.testing.assert_array_equal(digest([values], 3), digest([values.copy()], 3))
    assert not digest([changed], 3)[:, 3:].any()


@pytest.mark.parametrize(
    "values",
    [
        np.ones(3, np.float32),
        np.ones((2, 5), np.float32),
        np.ones((3, 0), np.float32),
        np.ones((3, VALUES_MAX + 1), np.float32),
        np.ones((3, 2), np.bool_),
        np.full((3, 2), "a", object),
    ],
    ids=["no rows of values", "other rows", "nothing", "too much", "truth values", "texts"],
)
def test_values_that_are_not_those_of_a_layer_are_refused(values: Any) -> None:
    with pytest.raises(FormatError, match="a layer gives"):
        digest([values], 3)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(row=st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), min_size=1, max_size=8))
def test_whatever_a_layer_gives_every_feature_is_a_number(row: list[float]) -> None:
    assert all(np.isfinite(found).all() for found in measure(np.resize(np.array(row), (1, 300))).values())


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("level", lambda rows: rows + 0.2),
        ("contrast", lambda rows: rows * 2),
        ("quiet", lambda rows: np.where(np.arange(300) < 200, rows, 0)),
        ("energy", lambda rows: rows + 4 * np.square(rows[:, :1])),
        ("residual", lambda rows: rows[:, ::-1]),
    ],
)
def test_an_unusual_response_moves_the_feature_that_is_named_for_it(name: str, change: Any) -> None:
    plain, changed = measure(FIRST[:200]), measure(np.ascontiguousarray(change(FIRST[:200])))

    assert (changed[name] - plain[name]).mean() > plain[name].std() / 2


def test_honest_rows_have_an_energy_of_about_one_and_what_is_missing_says_nothing() -> None:
    assert np.exp(measure(FIRST)["energy"]).mean() == pytest.approx(1, abs=0.05)
    assert np.isnan(FITTED.measure(np.full((2, SHOWN), np.nan))).all()


def test_a_layer_that_never_varies_can_still_be_a_reference() -> None:
    fitted = Activations.fit(["a"], digest([np.ones((40, 9))], 40))

    assert np.isfinite(
        fitted.measure(
            digest(
                [
                    np.ones((1, 9)),
                ],
                1,
            )
        )
    ).all()
    assert np.isfinite(fitted.measure(digest([np.full((1, 9), 7.0)], 1))).all()


@pytest.mark.parametrize(("names", "columns"), [([], 0), (["a"], SHOWN - 1), (["a"] * (LAYERS_MAX + 1), 9 * SHOWN)])
def test_a_reference_that_does_not_fit_its_layers_is_refused(names: list[str], columns: int) -> None:
    with pytest.raises(ValueError, match="layers, and what is shown"):
        Activations.fit(names, np.zeros((40, columns)))


def test_features_of_layers_come_behind_the_others_and_before_what_is_made_of_all() -> None:
    instruments = layered.calibration().instruments
    names = list(instruments.words)

    assert names[: len(FEATURES)] == list(FEATURES)
    assert names[len(FEATURES)] == "layer-1-level"
    assert names[-2:] == ["layer-2-residual", ATYPICAL]
    assert list(factories.calibration().instruments.words) == list(SCORES)


def test_the_other_features_are_what_they_are_without_layers() -> None:
    episode = factories.honest(np.random.default_rng(SEED))
    plain = Features.fit(episode.inputs, episode.scores)
    both = layered.with_layers(episode)
    fitted = Features.fit(both.inputs, both.scores, layered.LAYERS)

    found, coordinates = fitted.measure(both.inputs, both.scores)

    np.testing.assert_array_equal(found[:, : len(FEATURES)], plain.measure(episode.inputs, episode.scores)[0])
    np.testing.assert_array_equal(coordinates, plain.measure(episode.inputs, episode.scores)[1])
    assert np.isfinite(found).all()


def test_without_what_layers_show_their_features_say_nothing_and_the_others_do() -> None:
    features = layered.calibration().instruments.features
    episode = factories.honest(np.random.default_rng(SEED))

    found, _ = features.measure(episode.inputs, episode.scores)
    wrong, _ = features.measure(episode.inputs, episode.scores[:, :-1])

    assert np.isnan(found[:, len(FEATURES) :]).all()
    assert np.isfinite(found[:, : len(FEATURES)]).all()
    assert np.isnan(wrong[:, len(FEATURES) :]).all()


def test_a_model_that_names_no_classes_has_layers_too() -> None:
    episode = factories.honest(np.random.default_rng(SEED))
    shown = layered.shown(episode.inputs)

    found, _ = Features.fit(episode.inputs, shown, layered.LAYERS).measure(episode.inputs, shown)

    assert found.shape[1] == len(FEATURES) + 2 * len(LAYER_FEATURES)
    assert found[:, len(FEATURES) :].std(axis=0).all()


def test_scores_that_do_not_hold_what_the_layers_show_are_refused() -> None:
    with pytest.raises(ValueError, match="do not hold what 2 layers show"):
        Features.fit(np.ones((40, 3)), np.ones((40, 5)), layered.LAYERS)


def test_few_clients_have_layers_as_well() -> None:
    generator = np.random.default_rng(SEED)
    seen, others = ([layered.honest(generator) for _ in range(25)] for _ in range(2))

    instruments = fit_apart(seen, others, generator, layers=layered.LAYERS)

    assert instruments.features.layers == layered.LAYERS
    assert instruments.score([others[0]])[0].shape[1] == len(instruments.words)


def test_a_calibration_with_layers_survives_its_file() -> None:
    decoded = decode_calibration(DATA, what="it")

    assert encode_calibration(decoded) == DATA
    assert decoded.instruments.features.layers == layered.LAYERS
    episode = layered.honest(np.random.default_rng(SEED))
    expected = layered.calibration().instruments.score([episode])[0]
    np.testing.assert_array_equal(decoded.instruments.score([episode])[0], expected)


def changed(arrays: Mapping[str, Any], **document: Any) -> bytes:
    """The file with other arrays (None leaves one out) and other entries of its document (None leaves one out)."""
    tensors, known = safetensors.parse(memoryview(DATA), what="it")
    about = {**json.loads(known["palladion"]), **document}
    text = canonical.encode({key: value for key, value in about.items() if value is not None}).decode()
    found = {name: np.array(tensor.data) for name, tensor in tensors.items()} | dict(arrays)
    kept = [
        Tensor(name, DTYPES[str(array.dtype)], array.shape, array) for name, array in found.items() if array is not None
    ]
    return safetensors.serialise(kept, {"palladion": text})


def test_the_tests_own_way_to_write_a_file_is_the_right_one() -> None:
    assert changed({}) == DATA


@pytest.mark.parametrize(
    "broken",
    [
        {"activations.centre": None},
        {"activations.scale": np.zeros((2, SKETCH))},
        {"activations.scale": np.full((2, SKETCH), np.nan)},
        {"activations.deviations": np.full((2, module.DIRECTIONS_MAX), -1.0)},
        {"activations.directions": np.zeros((2, SKETCH, module.DIRECTIONS_MAX))},
        {"activations.directions": np.ones((3, SKETCH, module.DIRECTIONS_MAX))},
    ],
)
def test_a_block_that_is_none_is_refused(broken: Mapping[str, Any]) -> None:
    with pytest.raises(FormatError):
        decode_calibration(changed(broken), what="it")


@pytest.mark.parametrize(
    "layers",
    [
        None,
        [],
        ["a"],
        ["a", "a"],
        ["a", ""],
        ["a", 3],
        "ab",
        ["a", "b\n"],
        ["a", "b" * 600],
        [str(n) for n in range(9)],
    ],
)
def test_names_of_layers_that_do_not_fit_the_features_are_refused(layers: Any) -> None:
    with pytest.raises(FormatError):
        decode_calibration(changed({}, layers=layers), what="it")


def test_a_block_without_names_is_refused() -> None:
    tensors, _ = safetensors.parse(memoryview(DATA), what="it")
    other = encode_calibration(factories.calibration(clients=20, organisations=3))
    known, metadata = safetensors.parse(memoryview(other), what="it")
    data = safetensors.serialise([*known.values(), tensors["activations.centre"]], metadata)

    with pytest.raises(FormatError, match="not written the way"):
        decode_calibration(data, what="it")


def watched() -> Watch:
    watch = Watch(WatchPolicy(simulated_may_enforce=True))
    watch.watch_model("fraud", layered.calibration(), {})
    return watch


def ask(watch: Watch, episode: Episode, client: str = "a", organisation: str = "") -> Any:
    asker = Asker(client, organisation or client)
    return watch.observe(asker, "fraud", episode.inputs, episode.scores, now=1e9)


def test_a_state_with_scores_of_layers_goes_on_where_it_was_saved() -> None:
    episode = layered.honest(np.random.default_rng(SEED))
    half = factories.HORIZON // 2
    first, second = (Episode(episode.inputs[part], episode.scores[part]) for part in (slice(half), slice(half, None)))
    whole, before, after = watched(), watched(), Watch(WatchPolicy())
    ask(whole, first)
    ask(before, first)
    saved = before.changes("fraud")

    after.watch_model("fraud", layered.calibration(), saved)

    assert len(saved["a"]) <= STATE_BYTES_MAX
    assert ask(after, second).evidence.p_value == ask(whole, second).evidence.p_value
    assert after.changes("fraud") == whole.changes("fraud")


def test_a_state_of_another_number_of_scores_is_none_of_a_calibration() -> None:
    plain, with_layers = factories.calibration(), layered.calibration()

    assert with_layers.fits(with_layers.new_state())
    assert not with_layers.fits(plain.new_state())
    assert not plain.fits(with_layers.new_state())
    assert plain.fits(ClientState.from_bytes(plain.new_state().to_bytes()))
    assert with_layers.fits(ClientState.from_bytes(with_layers.new_state().to_bytes()))


def test_a_thief_whom_only_the_layers_show_is_seen_by_them() -> None:
    generator = np.random.default_rng(SEED)
    rows = factories.honest(generator)
    odd = np.concatenate(
        [rows.scores, layered.shown(rows.inputs + 6 * generator.standard_normal(rows.inputs.shape))], 1
    )
    watch = watched()

    plain, seen = ask(watch, layered.with_layers(rows)), ask(watch, Episode(rows.inputs, odd), "b")

    assert plain.evidence.p_value > 0.05
    assert seen.evidence.p_value <= 1 / 100
    assert any("layer" in reason for reason in watch.explain("b")[0].reasons)


def test_linked_clients_are_weighed_together_with_layers() -> None:
    watch, generator = watched(), np.random.default_rng(SEED)

    found = [ask(watch, layered.honest(generator), name, "acme") for name in ("a", "b", "c")]

    assert 0 < found[-1].evidence.campaign_p_value <= 1
    assert watch.members("a", "fraud") == {"a", "b", "c"}


def test_the_page_lists_the_features_the_arrays_and_the_limits() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "watch.md").read_text(encoding="utf-8")
    section = " ".join(page.partition("## Activations")[2].partition("\n## ")[0].split())

    for name, meaning in LAYER_FEATURES.items():
        assert f"| `layer-n-{name}` | {meaning} |" in section
    for name in ("centre", "scale", "directions", "deviations"):
        assert f"`activations.{name}`" in section or f"`.{name}`" in section
    assert f"At most {LAYERS_MAX} layers" in section
    assert f"of up to {VALUES_MAX:,} values for a row" in section
    assert f"{module.SAMPLED:,} values at most" in section
    assert f"become {SHOWN} numbers" in section
    assert f"{SKETCH} sums with random signs" in section
    for patent in ("12,328,331", "11,921,903", "11,930,030", "11,954,199"):
        assert f"US {patent}" in section
    assert "no legal advice" in section
