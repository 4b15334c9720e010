"""Who gets an alert, by the policy: channels at once, the levels of who is on call, and quiet hours. Pure."""

from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo

from palladion.incident.alerts.alert import Alert, rank
from palladion.policy.alerting import AlertPolicy, OnCallPolicy


@dataclass(frozen=True)
class Routing:
    """The channels of a policy, and who is on call; both as `check_alerts` lets them through."""

    channels: tuple[AlertPolicy, ...]
    oncall: OnCallPolicy
    _of_levels: frozenset[str] = field(init=False)
    _zone: ZoneInfo = field(init=False)

    def __post_init__(self) -> None:
        named = frozenset(name for level in self.oncall.levels for name in level.channels)
        object.__setattr__(self, "_of_levels", named)
        object.__setattr__(self, "_zone", ZoneInfo(self.oncall.zone))

    @property
    def repeat(self) -> timedelta:
        """How long the same is counted, and told once."""
        return timedelta(minutes=self.oncall.repeat_minutes)

    @property
    def levels(self) -> int:
        """How many levels there are."""
        return len(self.oncall.levels)

    def direct(self, alert: Alert) -> tuple[str, ...]:
        """The channels that get it at once, whatever the hour: those that no level names."""
        return tuple(item.name for item in self.channels if item.name not in self._of_levels and takes(item, alert))

    def level(self, number: int, alert: Alert) -> tuple[str, ...]:
        """The channels of a level (the first is 1) that take it; of what lies beyond the last, those of the last."""
        names = self.oncall.levels[min(number, self.levels) - 1].channels
        return tuple(item.name for item in self.channels if item.name in names and takes(item, alert))

    def on_call(self, alert: Alert) -> bool:
        """Whether any level takes it."""
        return any(self.level(number, alert) for number in range(1, self.levels + 1))

    def escalates(self, alert: Alert) -> bool:
        """Whether it goes on to the next level when nobody takes its case; without a case nobody could take it."""
        return alert.case is not None and rank(alert.severity) >= rank(self.oncall.severity)

    def patience(self, level: int) -> timedelta:
        """How long a level has to take a case."""
        return timedelta(minutes=self.oncall.levels[level - 1].minutes)

    def is_quiet(self, alert: Alert, now: datetime) -> bool:
        """Whether these are hours in which the levels are not told of this."""
        if not self.oncall.quiet_from or rank(alert.severity) >= rank(self.oncall.quiet_below):
            return False
        begin, end = time.fromisoformat(self.oncall.quiet_from), time.fromisoformat(self.oncall.quiet_until)
        # the clock on the wall there: what it jumps over in spring is not quiet, what it shows twice in autumn is
        here = now.astimezone(self._zone).time()
        return begin <= here < end if begin < end else here >= begin or here < end


def takes(channel: AlertPolicy, alert: Alert) -> bool:
    """Whether a channel is for such alerts."""
    return rank(alert.severity) >= rank(channel.severity) and (not channel.about or alert.kind in channel.about)
