"""Who asks the broker, and how often: certificates as the registry knows them, each with its rate, and each client."""

from collections.abc import Callable

from palladion.access.certificates import Certificate
from palladion.access.limits import Rate, States, admit
from palladion.access.pseudonyms import pseudonym
from palladion.broker.asked import Peer
from palladion.errors import BusyError
from palladion.host.broker_messages import BrokerRefusedError
from palladion.keys import Root
from palladion.lifecycle.installation import Installation

RATES_MAX = 4096  # certificates, and clients, whose rate is remembered: some 400 KiB each
SUSPENDED = "suspended"


class Callers:
    """The clients of one installation. `monotonic` is in seconds."""

    def __init__(
        self, installation: Installation, gate: Root, *, per_minute: int, monotonic: Callable[[], float]
    ) -> None:
        self._installation = installation
        self._pseudonyms = gate.derive("pseudonyms")
        self._monotonic = monotonic
        self._rate = Rate(per_minute / 60, max(1.0, per_minute / 2))
        self._certificates = States(RATES_MAX)
        self._clients = States(RATES_MAX)

    def admit(self, certificate: Certificate) -> None:
        """Count a request against its certificate, before anything of it is read. Raises BusyError.

        Not for the thread that decides: it touches nothing that `identify` does.
        """
        self._count(self._certificates, certificate.names[0])

    def identify(self, certificate: Certificate) -> Peer:
        """The client whose certificate this is. Raises BrokerRefusedError, BusyError."""
        names = {("certificate", certificate.fingerprint), ("spiffe", certificate.spiffe)}
        with self._installation.open_registry() as registry, registry.read() as records:
            live = records.identities.live()
            owners = {one.client for one in live if (one.kind, one.value) in names}
            client = records.clients.find_id(next(iter(owners))) if len(owners) == 1 else None
            # a certificate that was taken back by itself is not let in by the name in it
            gone = client is not None and any(
                one.kind == "certificate" and one.value == certificate.fingerprint and one.revoked_at is not None
                for one in records.identities.of(client.id)
            )
            again = any((one.kind, one.value) == ("certificate", certificate.fingerprint) for one in live)
        if client is None or (gone and not again):
            raise BrokerRefusedError("no client is known by this certificate", reason="client")
        # however many certificates a client has
        self._count(self._clients, client.id)
        peer = Peer(client, certificate, f"{client.organisation}/{client.name}", pseudonym(self._pseudonyms, client.id))
        if client.revoked_at is not None or client.standing == SUSPENDED:
            raise BrokerRefusedError("the client is revoked or suspended", reason="revoked")
        return peer

    def stranger(self, certificate: Certificate) -> str:
        """What the ledger calls whoever has a certificate that no client is known by."""
        return pseudonym(self._pseudonyms, f"certificate {certificate.fingerprint}")

    def _count(self, states: States, key: str) -> None:
        now = self._monotonic()
        wait = states.wait(key, "", now)
        if not wait:
            admission = admit(self._rate, states.by_key.get(key, 0.0), now, 1)
            states.put(key, "", admission.state)
            wait = admission.wait_seconds
        if wait:
            raise BusyError(f"too many requests: wait {wait:.0f} seconds")
