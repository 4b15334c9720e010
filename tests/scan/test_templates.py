"""Chat templates format messages; what leaves the sandbox is refused."""

import pytest

from palladion.scan.content import examine
from palladion.scan.look import Look
from palladion.scan.templates import TEMPLATE_CHARACTERS_MAX, scan_template
from tests.scan.corpus.benign import TEMPLATE, TOOLS
from tests.scan.corpus.models import TEMPLATES


def _rules(text: str) -> set[str]:
    look = Look(examine)
    scan_template(text, look, "it")
    return {item.rule for item in look.findings}


@pytest.mark.parametrize("text", [TEMPLATE, TOOLS, "no template at all", "{{ messages[0]['role'] }}"])
def test_what_models_use_is_accepted(text: str) -> None:
    assert _rules(text) == set()


@pytest.mark.parametrize("text", TEMPLATES)
def test_what_leaves_the_sandbox_is_reported(text: str) -> None:
    assert _rules(text) == {"template"}


def test_a_template_of_a_megabyte_is_reported() -> None:
    assert _rules("{{ x }}" + "a" * TEMPLATE_CHARACTERS_MAX) == {"template"}
