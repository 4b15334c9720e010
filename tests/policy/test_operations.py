"""What the settings of a running gate's care may say."""

import pytest

from palladion.errors import PolicyError
from palladion.policy import OperationsPolicy, parse_policy


def _read(line: str) -> OperationsPolicy:
    return parse_policy(f"[operations]\n{line}\n".encode(), "it").operations


def test_nothing_is_open_sent_or_logged_unless_somebody_wants_it() -> None:
    policy = _read("")
    assert (policy.listen, policy.otlp, policy.log_every, policy.trace_every) == ("", "", 0, 0)


@pytest.mark.parametrize("listen", ["127.0.0.1:8711", "[::1]:8711", "gate.example:8711", ""])
def test_addresses_are_read(listen: str) -> None:
    assert _read(f'listen = "{listen}"').listen == listen


@pytest.mark.parametrize(
    "line",
    [
        'listen = "8711"',
        'listen = "unix:a.sock"',
        'otlp = "grpc://a:4317"',
        'otlp = "http://a b"',
        'log = "xml"',
        "log_every = -1",
        "drain_seconds = 601",
        "otlp_seconds = 0",
        "token = 5",
    ],
)
def test_what_cannot_be_is_refused_by_name(line: str) -> None:
    with pytest.raises(PolicyError, match=f"operations.{line.partition(' ')[0]}: "):
        _read(line)
