"""Rules: ids that others know too."""

import re

import pytest

from palladion.redteam.audit.rules import RULES, Rule


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_each_has_an_id_a_sentence_and_names_elsewhere(rule: Rule) -> None:
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", rule.id)
    assert rule.title
    assert rule.help
    for name in rule.ids:
        assert re.fullmatch(r"AML\.T\d{4}(\.\d{3})?|ML\d\d:2023|LLM\d\d:2025", name)
    assert any(name.startswith("AML.") for name in rule.ids)


def test_no_id_stands_twice() -> None:
    assert [rule.id for rule in RULES.values()] == list(RULES)
