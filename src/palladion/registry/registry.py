"""The registry of one installation: opening it, and its transactions. What can be done in one is `Records`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from sqlalchemy import Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError

from palladion import files
from palladion.clock import Clock
from palladion.errors import InstallationError, PolicyError
from palladion.registry import schema, sqlite
from palladion.registry.approvals import Approvals
from palladion.registry.calibrations import Calibrations
from palladion.registry.canaries import Canaries
from palladion.registry.client_copies import ClientCopies
from palladion.registry.clients import Clients
from palladion.registry.decoys import Decoys
from palladion.registry.deliveries import Deliveries
from palladion.registry.end_users import EndUsers
from palladion.registry.gate_states import GateStates
from palladion.registry.identities import Identities
from palladion.registry.incidents import Incidents
from palladion.registry.models import Models
from palladion.registry.operators import Operators
from palladion.registry.privacy import Privacy
from palladion.registry.promotions import Promotions
from palladion.registry.proposals import Proposals
from palladion.registry.recipients import Recipients
from palladion.registry.standings import Standings
from palladion.registry.tables import RESTORE
from palladion.registry.transaction import Transaction
from palladion.registry.versions import Versions


class Records:
    """Everything that exists, as one transaction sees it."""

    def __init__(self, transaction: Transaction) -> None:
        self.models = Models(transaction)
        self.versions = Versions(transaction, self.models)
        self.promotions = Promotions(transaction, self.models, self.versions)
        self.canaries = Canaries(transaction, self.models, self.versions, self.promotions)
        self.recipients = Recipients(transaction)
        self.deliveries = Deliveries(transaction, self.versions, self.recipients)
        self.clients = Clients(transaction)
        self.end_users = EndUsers(transaction, self.clients)
        self.identities = Identities(transaction, self.clients)
        self.standings = Standings(transaction, self.clients)
        self.client_copies = ClientCopies(transaction, self.clients)
        self.calibrations = Calibrations(transaction, self.versions)
        self.gate_states = GateStates(transaction)
        self.operators = Operators(transaction)
        self.proposals = Proposals(transaction)
        self.approvals = Approvals(transaction)
        self.incidents = Incidents(transaction, self.clients)
        self.decoys = Decoys(transaction)
        self.privacy = Privacy(transaction)


class Registry:
    """An open registry; threads may share it. Use as a context manager, or call `close`."""

    def __init__(self, engine: Engine, path: Path, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock
        self.path = path

    def __repr__(self) -> str:
        return f"<Registry {self.path}>"

    @classmethod
    def open(
        cls,
        location: str | Path,
        clock: Clock,
        *,
        create: bool = True,
        busy_timeout_ms: int = sqlite.BUSY_TIMEOUT_MS,
    ) -> Self:
        """Open the registry at a path or SQLAlchemy URL, and bring its schema up to date.

        A missing one is made, or refused as an InstallationError unless `create`: pass False where it must be there,
        so that a lost registry is not taken for an empty one. Raises PolicyError on a URL that cannot be opened,
        FormatError on a damaged file, InstallationError on one of a newer Palladion, StorageError, BusyError.
        """
        path = _path_of(location)
        with files.storage_errors(path):
            missing = not path.exists()
        if missing:
            if not create:
                raise InstallationError(f"no registry at {path}", RESTORE)
            with sqlite.new_file(path, keep_existing=True) as temporary:
                registry = cls(sqlite.make_engine(temporary, busy_timeout_ms=busy_timeout_ms), temporary, clock)
                with registry, registry._transaction(writable=True) as connection:
                    schema.upgrade(connection)
        registry = cls(sqlite.make_engine(path, busy_timeout_ms=busy_timeout_ms), path, clock)
        try:
            registry._update_schema()
        except BaseException:
            registry.close()
            raise
        return registry

    def close(self) -> None:
        """Close every connection; a transaction that is still open is rolled back."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def read(self) -> Iterator[Records]:
        """What exists at one moment, while others go on writing. Writing in it is a ValueError."""
        with self._transaction(writable=False) as connection:
            yield Records(Transaction(connection, self._clock, writable=False))

    @contextmanager
    def write(self) -> Iterator[Records]:
        """A transaction that holds the write lock: durable when the block ends, undone as a whole when it raises.

        Keep it short: others wait for it, and get a BusyError when they have waited too long.
        """
        with self._transaction(writable=True) as connection:
            yield Records(Transaction(connection, self._clock, writable=True))

    def verify(self) -> None:
        """Read the whole database and raise FormatError if a page, an index or a reference is broken."""
        with self._transaction(writable=False) as connection:
            sqlite.check_integrity(connection, str(self.path))

    def copy_to(self, target: Path) -> None:
        """Write a consistent copy to the new file `target`, for a backup; others can go on writing meanwhile."""
        with sqlite.database_errors(target), self._engine.connect() as connection:
            sqlite.copy(connection, target)

    @contextmanager
    def _transaction(self, *, writable: bool) -> Iterator[Connection]:
        with sqlite.database_errors(self.path), self._engine.connect() as connection:
            connection.execution_options(**{sqlite.WRITES: writable})
            with connection.begin():
                yield connection

    def _update_schema(self) -> None:
        with self._transaction(writable=False) as connection:
            current = schema.is_current(connection, str(self.path))
        if not current:
            with self._transaction(writable=True) as connection:
                # somebody else may have done it while we waited for the lock
                if not schema.is_current(connection, str(self.path)):
                    schema.upgrade(connection)


def _path_of(location: str | Path) -> Path:
    if isinstance(location, Path) or "://" not in location:
        return Path(location)
    try:
        url = make_url(location)
    except (ArgumentError, ValueError):
        # the text may hold a password: it is not repeated
        raise PolicyError(
            "the URL of the registry is not a SQLAlchemy URL", "sqlite:////folder/registry.sqlite"
        ) from None
    if url.get_backend_name() != "sqlite":
        raise PolicyError(
            f"the URL of the registry names {url.get_backend_name()}, and only sqlite can be opened so far",
            "leave registry.url empty for a file in the installation folder",
        )
    if not url.database or url.database == ":memory:" or url.query:
        raise PolicyError(
            "the URL of the registry names no plain file", "for example sqlite:////folder/registry.sqlite"
        )
    return Path(url.database)
