"""The settings of alerts: by which channels they leave, who is on call, and when (docs/alerts.md)."""

from collections.abc import Sequence
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from msgspec import Meta

from palladion.errors import PolicyError
from palladion.policy.section import Section

Severity = Literal["info", "warning", "critical"]
SEVERITIES: tuple[Severity, ...] = ("info", "warning", "critical")  # the least first
AlertKind = Literal["suspension", "campaign", "decoy", "drift", "ledger", "budget", "operational"]
CHANNELS_MAX = 16  # each has a thread of its own
_NAME = r"^[a-z][a-z0-9-]{0,31}$"
_TIME = r"^(([01][0-9]|2[0-3]):[0-5][0-9])?$"


class AlertPolicy(Section, frozen=True):
    """A channel by which a running gate sends alerts (docs/alerts.md)."""

    name: Annotated[
        str, Meta(pattern=_NAME, examples=["pager"], description="Name of the channel, for levels and for commands.")
    ]
    kind: Annotated[
        Literal["webhook", "alertmanager", "pagerduty", "apprise", "syslog"],
        Meta(
            description="What is there: webhook takes signed JSON (Standard Webhooks), alertmanager is Prometheus' "
            "(API v2), pagerduty takes Events v2, apprise sends to mail, chats and a hundred others (extra alerts), "
            "syslog takes RFC 5424."
        ),
    ] = "webhook"
    url: Annotated[
        str,
        Meta(
            max_length=2000,
            pattern=r"^((https?|tls|tcp|udp)://[!-~]+)?$",
            description="Where it takes them: of alertmanager the address before /api/v2/alerts; empty for pagerduty "
            "means events.pagerduty.com; of syslog tls://host:6514, or tcp:// or udp:// on this machine. Of apprise it "
            "is a secret, and stands in the file.",
        ),
    ] = ""
    secret: Annotated[
        str,
        Meta(
            max_length=4096,
            description="File with the secret, relative to this file, readable by its owner alone: the key of a "
            "webhook (whsec_…), the routing key of pagerduty, the address of apprise, a bearer token of alertmanager "
            "if it wants one.",
        ),
    ] = ""
    ca: Annotated[
        str,
        Meta(
            max_length=4096,
            description="File of the authorities, in PEM, that alone may vouch for the channel; empty means the "
            "system's.",
        ),
    ] = ""
    insecure_http: Annotated[
        bool,
        Meta(description="Send over plain HTTP beyond the loopback, where whoever is on the way reads every alert."),
    ] = False
    severity: Annotated[Severity, Meta(description="Least severity that is sent here.")] = "warning"
    about: Annotated[
        tuple[AlertKind, ...], Meta(max_length=7, description="Kinds that are sent here; empty sends all.")
    ] = ()
    names: Annotated[
        bool,
        Meta(
            description="Name clients as the registry does, where a case concerns them. Without it there are "
            "pseudonyms, as in the ledger."
        ),
    ] = False


class LevelPolicy(Section, frozen=True):
    """Who is told when a case reaches this level, and how long they have to take it."""

    channels: Annotated[tuple[str, ...], Meta(min_length=1, max_length=CHANNELS_MAX)]
    minutes: Annotated[int, Meta(ge=1, le=1440)] = 15


class OnCallPolicy(Section, frozen=True):
    """Who is told when, and what happens when nobody takes a case (docs/alerts.md)."""

    levels: Annotated[
        tuple[LevelPolicy, ...],
        Meta(
            max_length=8,
            description='Levels in order, each as { channels = ["pager"], minutes = 15 }: the first is told at once, '
            "the next when nobody has taken the case (`palladion incident take`) after these minutes. Channels that no "
            "level names get every alert at once.",
        ),
    ] = ()
    severity: Annotated[
        Severity, Meta(description="Least severity of a case that goes on to the next level when nobody takes it.")
    ] = "critical"
    quiet_from: Annotated[
        str,
        Meta(pattern=_TIME, description="Time of day at which quiet hours of the levels begin; empty has none."),
    ] = ""
    quiet_until: Annotated[str, Meta(pattern=_TIME, description="Time of day at which they end.")] = ""
    quiet_below: Annotated[
        Severity, Meta(description="Alerts below this severity wait for the end of quiet hours.")
    ] = "critical"
    zone: Annotated[str, Meta(max_length=64, description="Time zone of these times, such as Europe/Berlin.")] = "UTC"
    repeat_minutes: Annotated[
        int,
        Meta(
            ge=1,
            le=10_080,
            description="Minutes in which what happens again to the same client or case is counted and no new page; "
            "then one update says how often.",
        ),
    ] = 60
    link: Annotated[
        str,
        Meta(
            max_length=500,
            pattern=r"^(https?://[!-~]+)?$",
            description="Address of your own page about a case, with {case} where its id belongs; alerts carry it.",
        ),
    ] = ""


def check_alerts(channels: Sequence[AlertPolicy], oncall: OnCallPolicy) -> None:
    """Raise PolicyError for what contradicts itself. Whether a channel can send, it says when it is opened."""
    if len(channels) > CHANNELS_MAX:
        raise PolicyError(f"there are {len(channels)} [[alert]], at most {CHANNELS_MAX} are allowed")
    names = [channel.name for channel in channels]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise PolicyError(f"two [[alert]] have the name {twice}", "levels name channels: give each its own")
    unknown = next((name for level in oncall.levels for name in level.channels if name not in names), None)
    if unknown is not None:
        raise PolicyError(f"oncall.levels names {unknown}, and there is no [[alert]] of that name")
    if bool(oncall.quiet_from) != bool(oncall.quiet_until):
        raise PolicyError("oncall.quiet_from and oncall.quiet_until go together, and one of them is empty")
    if oncall.quiet_from and oncall.quiet_from == oncall.quiet_until:
        raise PolicyError("oncall.quiet_from and oncall.quiet_until are the same time", "leave both empty for none")
    try:
        ZoneInfo(oncall.zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError: the name is one of a folder
        raise PolicyError(f"oncall.zone: there is no time zone {oncall.zone!r} here", "such as Europe/Berlin") from None
