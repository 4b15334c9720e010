"""The settings of alerts: what could not send, or contradicts itself, is refused."""

import pytest

from palladion.errors import PolicyError
from palladion.policy import parse_policy

CHANNEL = '[[alert]]\nname = "chat"\nurl = "https://hooks.example/x"\nsecret = "s"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (CHANNEL + CHANNEL, "two .*have the name chat"),
        ('[[alert]]\nname = "Chat"\n', "alert.name: expected a name of small letters"),
        ('[[alert]]\nname = "chat"\nurl = "a.example"\n', "alert.url: expected an address"),
        ('[oncall]\nlevels = [{ channels = ["pager"] }]\n', "names pager, and there is no"),
        ('[oncall]\nquiet_from = "22:00"\n', "go together"),
        ('[oncall]\nquiet_from = "22:00"\nquiet_until = "22:00"\n', "are the same time"),
        ('[oncall]\nquiet_from = "24:00"\nquiet_until = "07:00"\n', "oncall.quiet_from: expected a time of day"),
        ('[oncall]\nzone = "Mars/Olympus"\n', "no time zone 'Mars/Olympus'"),
        ('[oncall]\nzone = "../../etc/passwd"\n', "no time zone"),
        ('[oncall]\nzone = "Europe"\n', "no time zone"),
        (
            "".join(CHANNEL.replace("chat", f"c{number}") for number in range(17)),
            "17 .*at most 16",
        ),
    ],
)
def test_a_policy_that_contradicts_itself_is_refused(text: str, message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        parse_policy(text.encode(), "palladion.toml")


def test_channels_and_levels_are_read() -> None:
    levels = '[oncall]\nlevels = [{ channels = ["chat"], minutes = 5 }]\nzone = "Europe/Berlin"\n'
    policy = parse_policy((CHANNEL + levels).encode(), "palladion.toml")
    assert policy.alert[0].severity == "warning"
    assert (policy.oncall.levels[0].channels, policy.oncall.levels[0].minutes) == (("chat",), 5)
