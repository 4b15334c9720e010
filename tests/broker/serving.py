"""A broker behind real TLS on the loopback, in a thread, and hosts that have certificates for it."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from palladion.attest.binding import report_data
from palladion.attest.evidence import Evidence
from palladion.broker.connections import Server
from palladion.broker.server import BrokerApp, server_config
from palladion.host.broker import Attester, BrokerClient, client_context, nothing_attested
from tests.attest.synthetic import SnpReport, snp_lab
from tests.gate.certificates import Authority, Issued, address

from .parts import ATTESTED, Setting, prepare

WAIT_SECONDS_MAX = 30.0


@dataclass
class Parties:
    """Certificates of one authority, and of one that nobody knows."""

    folder: Path
    authority: Authority = field(init=False)
    broker: Issued = field(init=False)
    host: Issued = field(init=False)
    other: Issued = field(init=False)

    def __post_init__(self) -> None:
        self.authority = Authority(self.folder)
        self.broker = self.authority.issue("tls-broker", [address("127.0.0.1")])
        self.host = self.authority.issue("tls-host")
        self.other = self.authority.issue("tls-other")

    def settings(self, setting: Setting, rule: str = "") -> Setting:
        """The installation's policy with TLS, and the host's certificate as the client's."""
        settled = setting.settle(rule)
        path = settled.installation.paths.policy
        lines = [
            "[broker]",
            'listen = "127.0.0.1:0"',
            f'tls_certificate = "{self.broker.path}"',
            f'tls_key = "{self.broker.key}"',
            f'client_ca = "{self.authority.path}"',
        ]
        path.write_text(path.read_text().replace("[broker]", "\n".join(lines), 1))
        with settled.installation.open_registry() as registry, registry.write() as records:
            records.identities.add(setting.client.id, "certificate", self.host.fingerprint)
        return settled.again()


@dataclass
class Served:
    """A broker that answers at `url`."""

    setting: Setting
    parties: Parties
    url: str = ""

    def client(
        self,
        issued: Issued | None = None,
        *,
        attest: Attester = nothing_attested,
        url: str = "",
        seconds_now: Callable[[], float] = time.monotonic,
        authority: Path | None = None,
    ) -> BrokerClient:
        """A host's side."""
        mine = issued or self.parties.host
        context, fingerprint = client_context(
            authority=authority or self.parties.authority.path, certificate=mine.path, private_key=mine.key
        )
        return BrokerClient(url or self.url, context, fingerprint, attest, seconds_now)


@contextmanager
def serving(setting: Setting, parties: Parties) -> Iterator[Served]:
    """A broker for the block."""
    found: list[str] = []
    started = threading.Event()

    def tell(url: str) -> None:
        found.append(url)
        started.set()

    app = BrokerApp(setting.broker())
    policy = setting.installation.policy.broker
    server = Server(server_config(app, policy, setting.installation.paths.home), tell)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        assert started.wait(WAIT_SECONDS_MAX)
        yield Served(setting, parties, found[0])
    finally:
        server.should_exit = True
        thread.join(WAIT_SECONDS_MAX)
        app.close()


def guest(**report: Any) -> Attester:
    """A confidential machine of our own making."""

    def attest(*, nonce: bytes, public_key: bytes, file_ids: Sequence[str]) -> Sequence[Evidence]:
        bound = report_data(nonce, public_key, file_ids)
        return [snp_lab().evidence(SnpReport(**{"report_data": bound, **report}))]

    return attest


def built(folder: Path, *, attested: bool = False) -> tuple[Setting, Parties]:
    """An installation and its certificates."""
    parties = Parties(folder)
    return parties.settings(prepare(folder), ATTESTED if attested else ""), parties
