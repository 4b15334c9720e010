"""Parts of the story; tests/cli/test_demo.py tells all of it."""

from pathlib import Path

import numpy as np
import pytest

from palladion.demo import story
from palladion.demo.customers import Account, Harvest
from palladion.errors import InconclusiveError
from palladion.policy import parse_policy, template


def test_every_setting_that_the_demo_changes_is_in_the_template() -> None:
    text = template()
    for setting, value in story.SETTINGS:
        text = story._set(text, setting, value)
    policy = parse_policy(text.encode(), "palladion.toml")
    assert policy.watch.simulated_may_enforce
    assert policy.watch.suspend_campaigns
    assert policy.gate.listen == "127.0.0.1:0"
    with pytest.raises(InconclusiveError, match="no setting 'colour'"):
        story._set(text, "colour", "1")


def test_rows_that_show_nothing_do_not_count_for_accuracy() -> None:
    truth = np.array([1, 2, -1, 4])
    account = Account("a", "k", "127.0.0.1", "/", np.zeros((4, 1), np.float32), truth=truth)
    harvest = Harvest(account, np.array([1, 3, 9]), np.zeros((3, 10)), 403)
    assert story._accuracy([harvest]) == (1, 2)


def test_the_newest_bundle_of_entries_is_found_among_full_and_partial_ones(tmp_path: Path) -> None:
    for name in ("000", "001", "002.p/7", "002.p/12"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    assert max(tmp_path.rglob("*"), key=story._age_of_bundle) == tmp_path / "002.p" / "12"
