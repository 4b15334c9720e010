"""The language models of a policy: their paths, and what cannot be served."""

import asyncio
from typing import Any

import pytest

from palladion.errors import PolicyError
from palladion.gate.chat.kinds import KINDS
from palladion.gate.chat.models import LanguageModels
from palladion.policy import RoutePolicy
from tests.gate.gates import MODEL, House, open_gate

UP: dict[str, Any] = {"protocol": "openai", "upstream": "http://127.0.0.1:9"}


def _models(house: House, *routes: RoutePolicy) -> LanguageModels:
    stages = open_gate(house).gate.stages
    return LanguageModels(house.with_policy(*routes).policy, house.installation.paths.home, stages, house.root)


def test_models_of_one_prefix_share_their_paths(house: House) -> None:
    async def test() -> None:
        models = _models(
            house,
            RoutePolicy(model="a", **UP),
            RoutePolicy(model="b", **UP),
            RoutePolicy(model="a", path="/llm/", **UP),
            RoutePolicy(model=MODEL),
        )
        paths = [*KINDS, "/v1/models"]
        assert set(models.endpoints) == {
            *paths, "/v1/models/a", "/v1/models/b", *(f"/llm{path}" for path in paths), "/llm/v1/models/a",
        }  # fmt: skip
        assert [route.model for route in models.policies] == ["a", "b", "a"]
        assert len({route.route for route in models.policies}) == 3
        await models.close()

    asyncio.run(test())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"upstream": ""}, "needs an upstream"),
        ({"upstream": "http://192.0.2.1"}, "not encrypted"),
        ({"upstream": "http://127.0.0.1:9/v1"}, "without a path"),
        ({"extra_fields": ("chat_template",)}, "chat_template"),
        ({"upstream_key": "nothing"}, "nothing"),
    ],
    ids=["none", "plain", "path", "extra", "key"],
)
def test_what_cannot_be_served_is_said_at_the_start(house: House, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        _models(house, RoutePolicy(**{"model": "a", **UP, **settings}))


def test_without_language_models_there_are_no_paths(house: House) -> None:
    assert _models(house, RoutePolicy(model=MODEL)).endpoints == {}
