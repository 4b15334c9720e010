"""A publisher with a channel, and hosts that follow it; every call makes fresh ones."""

import os
import shutil
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tuf.ngclient import FetcherInterface

from palladion.clock import ManualClock
from palladion.keys import Ed25519Signer
from palladion.release.channel import Channel
from palladion.release.entries import Release
from palladion.release.keys import ChannelKeys
from palladion.release.subscriber import Subscriber
from tests.seal.factories import Party

START = datetime(2026, 1, 1, tzinfo=UTC)


def signer() -> Ed25519Signer:
    return Ed25519Signer(os.urandom(32))


@dataclass
class Stage:
    """All that takes part: owner's key, online key, the publisher who seals, the channel, and a clock for all."""

    folder: Path
    owner: Ed25519Signer = field(default_factory=signer)
    online: Ed25519Signer = field(default_factory=signer)
    party: Party = field(default_factory=Party)
    clock: ManualClock = field(default_factory=lambda: ManualClock(START))

    def __post_init__(self) -> None:
        self.channel = Channel.create(
            self.folder / "channel",
            self.folder / "private" / "channel.json",
            self.keys,
            self.everybody,
            clock=self.clock,
        )

    @property
    def keys(self) -> ChannelKeys:
        return ChannelKeys.of(owner=self.owner.public_key, online=self.online.public_key)

    @property
    def everybody(self) -> list[Ed25519Signer]:
        return [self.owner, self.online]

    @property
    def metadata(self) -> Path:
        return self.folder / "channel" / "metadata"

    def seal(self, version: int, **fields: Any) -> Path:
        path = self.folder / f"{version}-{os.urandom(4).hex()}.sealed"
        return self.party.seal(path, [("model.bin", os.urandom(5000))], version=version, **fields)

    def publish(self, version: int, **fields: Any) -> Release:
        return self.channel.publish(self.seal(version, **fields), self.party.publishers, self.everybody)

    def host(self, name: str = "host", *, root: bytes = b"", fetcher: FetcherInterface | None = None) -> Subscriber:
        trusted = root or self.channel.trusted_root()
        return Subscriber(self.folder / "channel", trusted, self.folder / name, self.clock, fetcher)

    def save(self, name: str) -> Path:
        """A copy of the whole channel as it is now, as an attacker keeps one."""
        return Path(shutil.copytree(self.folder / "channel", self.folder / name))

    def put_back(self, saved: Path) -> None:
        shutil.rmtree(self.folder / "channel")
        shutil.copytree(saved, self.folder / "channel")
