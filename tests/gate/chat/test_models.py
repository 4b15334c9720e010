"""The language models of a policy: their paths, and what cannot be served."""

import asyncio
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest

from palladion.errors import PolicyError, TamperError
from palladion.gate.chat.calibrated import path_of
from palladion.gate.chat.kinds import KINDS
from palladion.gate.chat.models import LanguageModels
from palladion.policy import RoutePolicy
from palladion.watch.text.calibration_file import encode_text_calibration
from tests.gate.gates import MODEL, House, open_gate
from tests.watch.text import encoders, talk

from .engine import Exchange, engine, good
from .talking import CHAT, HELLO, NAME, OTHER, run, talking

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


def test_a_gate_starts_with_the_encoder_that_its_calibration_names_and_with_no_other(
    house: House, tmp_path: Path
) -> None:
    data = encode_text_calibration(talk.encoded())
    path = path_of(tmp_path, sha256(data).hexdigest())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    (tmp_path / "encoder.onnx").write_bytes(encoders.network())
    (tmp_path / "tokenizer.json").write_bytes(encoders.tokenizer())
    named: dict[str, Any] = {
        "model": talk.about().model,
        "calibration": sha256(data).hexdigest(),
        "encoder": str(tmp_path / "encoder.onnx"),
        "tokenizer": str(tmp_path / "tokenizer.json"),
    }
    policy = house.with_policy(RoutePolicy(**named, **UP), RoutePolicy(**named, path="/b", **UP)).policy

    def opened() -> LanguageModels:
        home, stages = house.installation.paths.home, open_gate(house).gate.stages
        return LanguageModels(policy, home, stages, house.root, calibrations=tmp_path)

    async def test() -> None:
        models = opened()
        first, second = models._routes
        assert first.encoding is not None
        assert second.encoding is not None
        assert first.calibration is not None
        assert second.calibration is not None
        # two routes to one model have one encoder in memory
        assert first.calibration.calibration.encoder is second.calibration.calibration.encoder
        async with models.renewing(policy) as routes:
            assert [route.encoding for route in routes] == [first.encoding, second.encoding]
        (vector,) = await first.encoding.vectors(["The river."])
        assert vector.tobytes() == encoders.encoder().vector("The river.").tobytes()
        await models.close()
        with pytest.raises(RuntimeError, match="after shutdown"):
            await second.encoding.vectors(["The river."])

    asyncio.run(test())
    (tmp_path / "encoder.onnx").write_bytes(encoders.network(names=("input_ids",)))
    with pytest.raises(TamperError, match="is not the encoder that the calibration"):
        opened()


def test_servers_come_and_go_with_another_policy_and_what_is_on_its_way_arrives(house: House) -> None:
    async def test() -> None:
        going_on = asyncio.Event()

        async def slowly(exchange: Exchange) -> None:
            await going_on.wait()
            await good(exchange)

        async with talking(house, slowly) as talk, engine(good) as other:
            models, old = talk.models, talk.models._routes[0].server
            asked = asyncio.create_task(talk.ask())
            while not talk.engine.asked:
                await asyncio.sleep(0.001)
            moved = msgspec.structs.replace(models.policies[0], upstream=f"http://127.0.0.1:{other.port}")
            new = msgspec.structs.replace(moved, model="new", path="/new")
            policy = house.with_policy(moved, new).policy
            async with models.renewing(policy) as routes:
                models.put(routes)
                talk.bench.gate.serve(talk.bench.gate.served, models.endpoints)
            # the second one is gone, and the first asks elsewhere
            assert [(await talk.ask({**HELLO, "model": name})).status for name in (NAME, OTHER)] == [200, 404]
            assert (await talk.ask({**HELLO, "model": "new"}, path=f"/new{CHAT}")).status == 200
            assert (len(talk.engine.asked), len(other.asked)) == (1, 2)
            assert not old._closed
            going_on.set()
            assert (await asked).status == 200
            await models.close()
            assert old._closed

    run(test)


def test_of_a_policy_that_is_refused_no_server_stays(house: House) -> None:
    async def test() -> None:
        async with talking(house) as talk:
            models = talk.models
            moved = msgspec.structs.replace(models.policies[0], upstream="http://127.0.0.1:9")
            with pytest.raises(PolicyError, match="something else"):
                async with models.renewing(house.with_policy(moved, models.policies[1]).policy) as routes:
                    raise PolicyError("something else is wrong")
            assert [route.server._closed for route in routes] == [True, False]
            wrong = msgspec.structs.replace(moved, path="/a", extra_fields=("model",))
            with pytest.raises(PolicyError, match="no client may send"):
                async with models.renewing(house.with_policy(models.policies[0], wrong).policy):
                    pass
            assert (await talk.ask()).status == 200

    run(test)
