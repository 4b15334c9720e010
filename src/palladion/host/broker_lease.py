"""Goes on asking a broker whether a key may still be used, and says so when it may not, or nobody answers in time.

Whoever holds a key is told of its loss once; what is lost stays lost.
"""

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from palladion.errors import BusyError, PalladionError, StorageError
from palladion.host.broker import BrokerClient, Lease

RENEWED_AT = 0.5  # of a lease's time: the other half is for a broker that does not answer
LOOK_SECONDS = 1.0  # a lease ends by so much late, at most, after a machine slept
LEAST_SECONDS = 0.05
PAUSE_SECONDS = 5.0  # before a broker that did not answer is asked again, where the lease leaves so much

Lost = Callable[[Lease, str], None]  # which, and why; called on the keeper's thread


class LeaseKeeper:
    """Renews leases; whoever adds one is told through `lost` when its key must not be used any more.

    Two threads: one asks, and may be kept waiting by whoever sits in between; the other watches the time.
    """

    def __init__(self, client: BrokerClient, lost: Lost) -> None:
        self._client = client
        self._lost = lost
        self._lock = threading.Condition()
        self._leases: dict[str, tuple[Lease, float]] = {}  # by id: and when to ask next
        self._stopped = False
        self._threads = [
            threading.Thread(target=self._run, args=(step,), name="broker", daemon=True)
            for step in (self.renew_due, self.expire)
        ]

    def start(self) -> None:
        """Begin; signals go to other threads."""
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            for thread in self._threads:
                thread.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def add(self, lease: Lease) -> None:
        """Go on with a lease from now on, in place of any earlier one of the same file.

        The older one's end, or loss, must not take away what the newer one allows.
        """
        with self._lock:
            for other in [one.id for one, _ in self._leases.values() if one.file_id == lease.file_id]:
                del self._leases[other]
            self._leases[lease.id] = (lease, _renewal(lease))
            self._lock.notify_all()

    def drop(self, lease: str) -> None:
        """Its key is not used any more."""
        with self._lock:
            self._leases.pop(lease, None)

    def stop(self) -> None:
        """End; nobody is told of anything afterwards. An answer that is waited for is not."""
        with self._lock:
            self._stopped = True
            self._lock.notify_all()

    def expire(self) -> float | None:
        """Lose what is over its time; the seconds until there is more, None where there is nothing."""
        now = self._client.seconds_now()
        for lease in [lease for lease, _ in self._all() if lease.until <= now]:
            self._lose(lease, "the broker has not answered in time")
        return self._wait(lease.until for lease, _ in self._all())

    def renew_due(self) -> float | None:
        """Ask for what is due; the seconds until there is more, None where there is nothing."""
        for lease, at in self._all():
            if at <= self._client.seconds_now() < lease.until:
                self._renew(lease)
        return self._wait(at for _, at in self._all())

    def _run(self, step: Callable[[], float | None]) -> None:
        while not self._stopped:
            wait = step()
            with self._lock:
                if not self._stopped:
                    # a machine that slept wakes up late: look again after a while at the latest
                    self._lock.wait(LOOK_SECONDS if wait is None else min(max(wait, LEAST_SECONDS), LOOK_SECONDS))

    def _renew(self, lease: Lease) -> None:
        try:
            renewed = self._client.renew(lease)
        except (StorageError, BusyError):
            # not there, or too busy: ask again, until it is too late
            pause = min(PAUSE_SECONDS, lease.seconds / 20)
            self._keep(lease, self._client.seconds_now() + pause)
        except PalladionError as error:
            self._lose(lease, error.message)
        else:
            self._keep(renewed, _renewal(renewed))

    def _keep(self, lease: Lease, at: float) -> None:
        with self._lock:
            # unless it was lost meanwhile: what is lost stays lost
            if lease.id in self._leases:
                self._leases[lease.id] = (lease, at)

    def _lose(self, lease: Lease, why: str) -> None:
        with self._lock:
            if self._stopped or self._leases.pop(lease.id, None) is None:
                return
        self._lost(lease, why)

    def _all(self) -> list[tuple[Lease, float]]:
        with self._lock:
            return list(self._leases.values())

    def _wait(self, times: Iterable[float]) -> float | None:
        first = min(times, default=None)
        return None if first is None else max(first - self._client.seconds_now(), 0.0)


def _renewal(lease: Lease) -> float:
    return lease.until - lease.seconds * (1 - RENEWED_AT)


@contextmanager
def kept(client: BrokerClient, leases: Iterable[Lease], lost: Lost) -> Iterator[LeaseKeeper]:
    """Leases that are renewed for the length of a block."""
    keeper = LeaseKeeper(client, lost)
    for lease in leases:
        keeper.add(lease)
    keeper.start()
    try:
        yield keeper
    finally:
        keeper.stop()
