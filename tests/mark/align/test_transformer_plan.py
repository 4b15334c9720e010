"""What is found out about a stolen transformer before anything is changed: layers, heads; seeded."""

from dataclasses import replace

import pytest

from palladion.mark.align.transformer import realign_transformer
from palladion.mark.align.transformer_layouts import layout_of
from palladion.mark.align.transformer_parts import Parts
from palladion.mark.align.transformer_plan import Plan, plan_transformer
from palladion.model.model import Model, ModelFile
from palladion.redteam.removal.reparametrise import reparametrise
from tests.mark.suspects import saved

from .transformers_made import HEADS, made

pytestmark = pytest.mark.slow  # the default suite is run often, and these are many

ORIGINAL = saved(made("bert"))
ATTACKED = reparametrise(made("bert"), 3, heads=HEADS)


def _plan(suspect: Model, *, original: Model = ORIGINAL, heads: int | None = None) -> Plan | None:
    layouts = [layout_of(model.tensors) for model in (original, suspect)]
    assert layouts[0] is not None
    assert layouts[1] is not None
    return plan_transformer(Parts(original, layouts[0]), Parts(suspect, layouts[1]), heads)


def test_a_single_stolen_layer_is_known_for_the_one_that_it_is() -> None:
    stolen = {
        name.replace("layer.1", "layer.0"): numbers for name, numbers in ATTACKED.items() if "layer.0" not in name
    }
    plan = _plan(saved(stolen))
    assert plan is not None
    (layer,) = plan.layers
    assert layer.ours.attention is not None
    assert layer.ours.attention.query.tensor == "encoder.layer.1.attention.self.query.weight"


def test_the_number_of_heads_is_inferred_or_given_or_stands_in_the_configuration() -> None:
    suspect = saved(ATTACKED)
    with_config = replace(
        ORIGINAL, files=(*ORIGINAL.files, ModelFile("config.json", memoryview(b'{"num_attention_heads": 2}')))
    )
    for plan, size in (
        (_plan(suspect), 8),
        (_plan(suspect, heads=1), 32),
        (_plan(suspect, original=with_config), 16),
        (_plan(suspect, original=with_config, heads=4), 8),
    ):
        assert plan is not None
        assert {layer.size for layer in plan.layers} == {size}


@pytest.mark.parametrize("text", [b"", b"[]", b'{"num_attention_heads": "4"}', b'{"num_attention_heads": -4}'])
def test_a_configuration_that_says_nothing_is_passed_over(text: bytes) -> None:
    original = replace(ORIGINAL, files=(ModelFile("config.json", memoryview(text)),))
    plan = _plan(saved(ATTACKED), original=original)
    assert plan is not None
    assert plan.layers[0].size == 8


def test_heads_that_do_not_divide_the_queries_are_refused() -> None:
    with pytest.raises(ValueError, match="5 heads do not divide 32 queries"):
        realign_transformer(ORIGINAL, saved(ATTACKED), heads=5)


def test_a_stranger_has_no_plan() -> None:
    assert _plan(saved(made("bert", seed=50))) is None
