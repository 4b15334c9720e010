"""The settings of private answers: what may not stand beside them."""

import pytest

from palladion.errors import PolicyError
from palladion.policy import parse_policy

PRIVATE = 'privacy = { mechanism = "noisy-max", epsilon = 0.1 }'


def _route(*lines: str, path: str = "") -> str:
    named = f'path = "{path}"' if path else ""
    return "\n".join(["[[route]]", 'model = "fraud"', named, *lines, ""])


def test_a_private_route_is_read() -> None:
    (route,) = parse_policy(_route(PRIVATE).encode(), "palladion.toml").route
    assert (route.privacy.mechanism, route.privacy.epsilon) == ("noisy-max", 0.1)
    assert route.privacy.is_on
    assert not parse_policy(_route().encode(), "palladion.toml").route[0].privacy.is_on


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("abstain = 0.01", "refuses queries by what the model said"),
        ('perturbation = "reverse-sigmoid"', "perturbs what has noise already"),
        ('kind = "embedding"', "no class scores"),
        ('protocol = "json"', "answers cannot have noise"),
        ('protocol = "openai"', "answers cannot have noise"),
        ("flipped = 0.01\n[retention]\nqueries = 10", "marks answers by what the model said"),
    ],
)
def test_nothing_that_tells_more_stands_beside_noise(line: str, told: str) -> None:
    with pytest.raises(PolicyError, match=told):
        parse_policy(_route(PRIVATE, line).encode(), "palladion.toml")


def test_a_model_that_answers_privately_answers_nothing_under_encryption() -> None:
    other = '[[encrypted]]\nmodel = "{}"\nprogram = "x.he"\n'
    with pytest.raises(PolicyError, match=r"\[\[encrypted\]\] answers from fraud without noise"):
        parse_policy((_route(PRIVATE) + other.format("fraud")).encode(), "palladion.toml")
    assert parse_policy((_route(PRIVATE) + other.format("churn")).encode(), "palladion.toml").encrypted


def test_a_model_that_answers_privately_does_so_on_all_its_routes() -> None:
    both = _route(PRIVATE, path="/a") + _route(path="/b")
    with pytest.raises(PolicyError, match="what the one holds back, the other tells"):
        parse_policy(both.encode(), "palladion.toml")
    assert parse_policy((_route(PRIVATE, path="/a") + _route(PRIVATE, path="/b")).encode(), "palladion.toml")


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ('mechanism = "laplacian"', "expected none, noisy-max, laplace or gaussian"),
        ("epsilon = 0.0", "route.privacy.epsilon"),
        ("sensitivity = 1.5", "route.privacy.sensitivity"),
        ("epsilonn = 1.0", "did you mean epsilon"),
    ],
)
def test_a_wrong_setting_is_told_by_its_name(setting: str, told: str) -> None:
    with pytest.raises(PolicyError) as caught:
        parse_policy(_route(f"privacy = {{ {setting} }}").encode(), "palladion.toml")
    assert told in " ".join([caught.value.message, *caught.value.hints])
