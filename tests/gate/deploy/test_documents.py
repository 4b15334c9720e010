"""Documents for Kubernetes: text that reads back as what was meant, and names that a cluster takes."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion.gate.deploy.documents import JOB_CHARACTERS_MAX, job_name, yaml

NAMES = st.from_regex(r"[a-z.]{1,8}", fullmatch=True)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda item: st.lists(item, max_size=4) | st.dictionaries(NAMES, item, max_size=4),
    max_leaves=20,
)  # fmt: skip
LABEL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")


def _yaml() -> Any:
    return pytest.importorskip("yaml", reason="this needs PyYAML")


@pytest.mark.slow
@given(document=JSON)
def test_what_is_written_is_what_a_reader_of_yaml_reads(document: object) -> None:
    assert _yaml().safe_load(yaml(document)) == document


def test_a_plain_name_stays_as_it_is() -> None:
    assert job_name("palladion-redteam", "fraud-2") == "palladion-redteam-fraud-2"


@pytest.mark.parametrize("name", ["a.b", "a_b", "a-", "a@3", "Ä", "x" * 64, f"{'x' * 24}-{'y' * 40}", "a\nb: c", ""])
def test_any_other_becomes_a_label_that_a_job_may_have(name: str) -> None:
    found = job_name("palladion-redteam", name)
    assert LABEL.fullmatch(found)
    assert len(found) <= JOB_CHARACTERS_MAX


def test_names_that_look_the_same_in_a_cluster_stay_apart() -> None:
    alike = ["a.b", "a_b", "a-b", "a@b", "a-b-", "x" * 63, "x" * 64]
    assert len({job_name("palladion-redteam", name) for name in alike}) == len(alike)


def test_the_longest_name_that_fits_is_kept_whole() -> None:
    fits = "x" * (JOB_CHARACTERS_MAX - len("palladion-redteam-"))
    assert job_name("palladion-redteam", fits) == f"palladion-redteam-{fits}"
    assert fits + "x" not in job_name("palladion-redteam", fits + "x")
