"""The publisher's metadata: who has to sign what, and what is taken up again."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from tuf.api.metadata import Metadata, Root

from palladion import canonical
from palladion.errors import ConflictError, FormatError, KeysError, TamperError
from palladion.keys import Ed25519Signer
from palladion.release import metadata
from palladion.release.keys import ROLES, ChannelKeys, Role
from palladion.release.metadata import Lifetimes, SignedRoles
from tests.release.factories import START, signer


class Crew:
    """Three owners of whom two have to sign, and an online key."""

    def __init__(self) -> None:
        self.owners = [signer() for _ in range(3)]
        self.online = signer()
        owners = Role(tuple(item.public_key for item in self.owners), 2)
        online = Role((self.online.public_key,))
        self.keys = ChannelKeys(root=owners, targets=owners, snapshot=online, timestamp=online)

    def begin(self, *signers: Ed25519Signer) -> SignedRoles:
        roles = SignedRoles.unsigned(self.keys)
        self.sign(roles, {"root", "targets"}, *signers)
        return roles

    def sign(self, roles: SignedRoles, changed: Any, *signers: Ed25519Signer) -> None:
        chosen = signers or (*self.owners[:2], self.online)
        roles.sign(set(changed), chosen, now=START, lifetimes=Lifetimes())


@pytest.fixture
def crew() -> Crew:
    return Crew()


def _decode(roles: SignedRoles) -> SignedRoles:
    return SignedRoles.decode(roles.encode(), what="it")


def test_new_metadata_is_version_1_of_every_role_and_comes_back(crew: Crew) -> None:
    roles = _decode(crew.begin())
    names = [name for name, _ in roles.files()]
    assert names == ["1.root.json", "1.targets.json", "1.snapshot.json", "timestamp.json"]
    assert roles.root.signed.expires == START + timedelta(days=365)
    assert roles.timestamp.signed.expires == START + timedelta(days=3)
    assert _decode(roles).encode() == roles.encode()


def test_what_follows_from_a_change_is_signed_too(crew: Crew) -> None:
    roles = crew.begin()
    crew.sign(roles, {"targets"})
    assert _versions(roles) == [1, 2, 2, 2]
    crew.sign(roles, set(), crew.online)
    assert _versions(roles) == [1, 2, 2, 3]
    crew.sign(roles, {"snapshot"}, crew.online)
    assert _versions(roles) == [1, 2, 3, 4]
    _decode(roles)


def _versions(roles: SignedRoles) -> list[int]:
    return [roles.of(name).signed.version for name in ROLES]


@pytest.mark.parametrize("signers", [(0,), (0, 0), ()], ids=["one owner", "one owner twice", "no owner"])
def test_fewer_owners_than_the_threshold_change_nothing(crew: Crew, signers: tuple[int, ...]) -> None:
    roles = crew.begin()
    with pytest.raises(KeysError, match="targets needs 2 of its keys"):
        crew.sign(roles, {"targets"}, *(crew.owners[number] for number in signers), crew.online)


def test_the_online_key_alone_signs_nothing_of_the_owners(crew: Crew) -> None:
    roles = crew.begin()
    for changed in ({"targets"}, {"root"}):
        with pytest.raises(KeysError):
            crew.sign(roles, changed, crew.online)
    with pytest.raises(KeysError, match="timestamp needs 1"):
        crew.sign(crew.begin(), set(), *crew.owners)


def test_a_signer_that_fails_or_lies_is_noticed_before_anything_is_kept(crew: Crew) -> None:
    class Broken:
        public_key = crew.online.public_key

        def sign(self, message: bytes) -> bytes:
            raise OSError("the token was pulled out")

    class Lying(Broken):
        def sign(self, message: bytes) -> bytes:
            return bytes(64)

    for device in (Broken(), Lying()):
        with pytest.raises(KeysError):
            crew.begin().sign(set(), [device], now=START, lifetimes=Lifetimes())


def test_a_new_root_needs_the_old_roots_keys_and_its_own(crew: Crew) -> None:
    fresh = Crew()
    for signers in ((*crew.owners, crew.online), (*fresh.owners, fresh.online)):
        roles = crew.begin()
        roles.set_keys(fresh.keys)
        with pytest.raises(KeysError, match="root needs 2"):
            crew.sign(roles, {"root"}, *signers)
    roles = _decode(crew.begin())
    roles.set_keys(fresh.keys)
    crew.sign(roles, {"root"}, *crew.owners[:2], *fresh.owners[:2], fresh.online)
    again = _decode(roles)
    assert [name for name, _ in again.files()][:2] == ["1.root.json", "2.root.json"]
    # the old keys sign nothing any more
    with pytest.raises(KeysError):
        crew.sign(again, {"targets"})


def test_signers_that_are_enough_are_told_from_those_that_are_not(crew: Crew) -> None:
    roles = crew.begin()
    assert roles.can_sign("targets", crew.owners[1:])
    assert not roles.can_sign("targets", crew.owners[:1])
    assert not roles.can_sign("targets", [crew.owners[0], crew.owners[0]])
    assert not roles.can_sign("timestamp", crew.owners)


def _forged(crew: Crew) -> dict[str, Any]:
    state: dict[str, Any] = json.loads(crew.begin().encode())
    return state


def _swap_targets(state: dict[str, Any]) -> None:
    state["targets"] = state["targets"].replace('"version":1', '"version":9')


def _foreign_root(state: dict[str, Any]) -> None:
    state["roots"].append(_forged(Crew())["roots"][0].replace('"version":1', '"version":2'))


ALTERED: dict[str, Callable[[dict[str, Any]], None]] = {
    "targets that nobody signed": _swap_targets,
    "another channel's targets": lambda state: state.update(targets=_forged(Crew())["targets"]),
    "another channel's root on top": _foreign_root,
    "another channel's root below": lambda state: state["roots"].insert(0, _forged(Crew())["roots"][0]),
    "the timestamp in place of the snapshot": lambda state: state.update(snapshot=state["timestamp"]),
    "no root": lambda state: state.update(roots=[]),
    "no JSON": lambda state: state.update(targets="{"),
    "an unknown member": lambda state: state.update(extra=1),
}


@pytest.mark.parametrize("defect", ALTERED)
def test_a_state_that_was_altered_is_never_signed_again(crew: Crew, defect: str) -> None:
    state = _forged(crew)
    ALTERED[defect](state)
    with pytest.raises((TamperError, FormatError)):
        SignedRoles.decode(canonical.encode(state), what="it")


def test_a_root_that_follows_out_of_turn_is_refused(crew: Crew) -> None:
    state = _forged(crew)
    twice = [state["roots"][0], state["roots"][0]]
    with pytest.raises(FormatError, match="root 2 is not where it belongs"):
        SignedRoles.decode(canonical.encode({**state, "roots": twice}), what="it")


def test_what_hosts_would_not_read_is_not_written(crew: Crew, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(metadata._LIMITS, "targets", 100)
    with pytest.raises(ConflictError, match="hosts read 100"):
        crew.begin()


def test_roots_that_hosts_would_not_follow_are_not_made(crew: Crew, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "ROOTS_MAX", 2)
    roles = crew.begin()
    crew.sign(roles, {"root"})
    with pytest.raises(ConflictError, match="has had 2 roots"):
        crew.sign(roles, {"root"})


def test_keys_are_written_as_other_tuf_clients_read_them(crew: Crew) -> None:
    root = Metadata[Root].from_bytes(crew.begin().roots[0]).signed
    assert root.consistent_snapshot
    assert {key.scheme for key in root.keys.values()} == {"ed25519"}
    assert root.roles["targets"].threshold == 2
    assert len(root.keys) == 4
