"""Mail, chats and a hundred other services, through the library apprise (extra `alerts`).

One channel is one address, so that what is sent again goes nowhere twice where one of several failed.
"""

import logging
from dataclasses import dataclass, field
from typing import Any

from palladion.errors import MissingExtraError, StorageError
from palladion.incident.alerts.messages import Message, text, title
from palladion.policy.alerting import AlertPolicy

SEND_SECONDS = 20.0  # with the waiting that some services ask for
_TYPES = {"info": "info", "warning": "warning", "critical": "failure"}


@dataclass(frozen=True)
class Services:
    """One service that apprise knows."""

    policy: AlertPolicy
    address: str = field(repr=False)  # with user, password or token in it
    _service: Any = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Raises MissingExtraError, and ValueError for an address that apprise does not know."""
        try:
            import apprise
        except ImportError:
            raise MissingExtraError(
                f"alert {self.policy.name} is sent by apprise, which is not installed",
                "pip install 'palladion[alerts]'",
            ) from None
        # it writes addresses into its log, which hold passwords
        logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)
        # nothing is kept, nothing run but its own plugins, and no redirect followed
        asset = apprise.AppriseAsset(storage_mode="memory", service_timeout=SEND_SECONDS, http_redirects=False)
        service = apprise.Apprise.instantiate(self.address, asset=asset, suppress_exceptions=True)
        if service is None:
            raise ValueError("the secret holds no address that apprise knows, such as mailtos://…")
        object.__setattr__(self, "_service", service)

    def send(self, message: Message) -> None:
        """See `Channel`. What refreshes only is not sent: whoever reads it has it."""
        if message.action == "refresh":
            return
        alert, names = message.topic.alert, self.policy.names
        kind = "success" if message.action in {"taken", "ended"} else _TYPES[alert.severity]
        try:
            taken = self._service.notify(
                body=text(message, names=names), title=title(message, names=names), notify_type=kind, body_format="text"
            )
        except Exception as error:  # noqa: BLE001 (plugins raise what they like, and its text may hold the address)
            raise StorageError(f"{self.policy.name} cannot be sent to: {type(error).__name__}") from None
        if not taken:
            raise StorageError(f"{self.policy.name} did not take it", "apprise -vv says why: it shows the address")
