"""Settings of the watch: what is promised of honest clients stands at the top, and nonsense is refused."""

import pytest

from palladion.errors import PolicyError
from palladion.policy.reader import parse_policy


def test_settings_of_the_watch_and_of_what_is_kept_are_read() -> None:
    policy = parse_policy(b"[watch]\nalpha_suspected = 0.01\n[retention]\nqueries = 7\n", "test")

    assert (policy.watch.alpha_suspected, policy.watch.alpha_watched) == (0.01, 0.01)
    assert policy.retention.queries == 7


@pytest.mark.parametrize(
    "setting", ["alpha_suspected = 0", "onset_spread = 1.5", "recover_hours = 0", "resident_mb = 0", "alpha = 0.1"]
)
def test_what_would_promise_nothing_is_refused(setting: str) -> None:
    with pytest.raises(PolicyError, match=setting.partition(" ")[0]):
        parse_policy(f"[watch]\n{setting}\n".encode(), "test")
