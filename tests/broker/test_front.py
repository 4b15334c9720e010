"""The front of a sealed file: what its publisher signed is what the file's own reader checks."""

from pathlib import Path

import msgspec
import pytest

from palladion.broker.front import unwrapped, verified_header
from palladion.errors import KeysError, TamperError
from palladion.seal.opening import unwrap_file_key
from palladion.seal.recipients import FileIdentity
from palladion.seal.source import opened_source
from palladion.seal.structure import Structure, read_structure
from tests.seal.factories import Party

from .parts import front_of


def _structure(party: Party, path: Path, size: int = 10) -> Structure:
    party.seal(path, (("model.bin", bytes(size)),))
    with opened_source(path) as source:
        return read_structure(source)


@pytest.mark.parametrize("size", [0, 10, 3 * 1024 * 1024], ids=["empty", "one segment", "several segments"])
def test_the_signature_of_any_file_holds_without_its_body(tmp_path: Path, size: int) -> None:
    party = Party()
    structure = _structure(party, tmp_path / "it.sealed", size)

    header = verified_header(front_of(structure), party.publishers)

    assert header == structure.header
    assert unwrapped(front_of(structure), header, [party.identity]) == unwrap_file_key(structure, [party.identity])


def test_a_signature_of_somebody_else_does_not_hold(tmp_path: Path) -> None:
    structure = _structure(Party(), tmp_path / "it.sealed")

    with pytest.raises(TamperError, match="none of the 1"):
        verified_header(front_of(structure), Party().publishers)


def test_a_key_is_unwrapped_for_its_own_header_alone(tmp_path: Path) -> None:
    """The broker's recipient is public: anybody can wrap a key of his own for it, to any file's id."""
    party = Party()
    structure = _structure(party, tmp_path / "it.sealed")
    front = front_of(structure)
    from palladion.seal.trailer import wrap_context

    own = party.identity.recipient
    context = wrap_context(structure.header.file_id, structure.floe_header, kind=own.kind, key_id=own.key_id)
    forged = msgspec.structs.replace(front.wrap, blob=own.wrap(bytes(32), context).blob)

    with pytest.raises(TamperError, match="FLOE tag"):
        unwrapped(msgspec.structs.replace(front, wrap=forged), structure.header, [party.identity])
    with pytest.raises(KeysError, match="none of this broker's keys"):
        unwrapped(front, structure.header, [FileIdentity.generate()])
