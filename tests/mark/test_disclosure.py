"""A court is shown some keys: they are the committed ones, enough for a test, and say nothing of the others."""

import json

import pytest

from palladion.errors import FormatError, TamperError
from palladion.mark.carriers import derive
from palladion.mark.disclosure import (
    commitment_root,
    disclose,
    parse_disclosure,
    tensor_commitments,
)
from palladion.mark.weights import OwnershipKey, tensor_key

KEY = OwnershipKey(derive(bytes(32), "ours"), bytes(range(16)))
OTHER = OwnershipKey(derive(bytes(32), "theirs"), bytes(range(16)))
NAMES = ("up", "down", "head")
ORIGINAL = "ab" * 32
ROOT = commitment_root(tensor_commitments(KEY, NAMES))


def test_what_is_shown_is_what_was_committed_to() -> None:
    shown = parse_disclosure(disclose(KEY, ORIGINAL, NAMES, ["head"]).encode(), what="it")

    shown.verify(ROOT)
    assert shown.original == ORIGINAL
    assert dict(shown.keys) == {"head": tensor_key(KEY, "head")}


def test_keys_that_were_not_shown_are_not_in_it() -> None:
    written = disclose(KEY, ORIGINAL, NAMES, ["head"]).encode().decode()

    assert tensor_key(KEY, "up").key.hex() not in written
    assert KEY.key.hex() not in written
    assert tensor_key(KEY, "head").key.hex() not in repr(disclose(KEY, ORIGINAL, NAMES, ["head"]))


def test_a_key_made_up_later_is_refused() -> None:
    document = json.loads(disclose(KEY, ORIGINAL, NAMES, ["head"]).encode())
    document["keys"]["head"] = tensor_key(OTHER, "head").key.hex()

    with pytest.raises(TamperError, match="not the one that was committed to"):
        parse_disclosure(json.dumps(document).encode(), what="it").verify(ROOT)


def test_a_key_under_another_tensors_name_is_refused() -> None:
    document = json.loads(disclose(KEY, ORIGINAL, NAMES, ["head"]).encode())
    document["keys"]["up"] = document["keys"]["head"]

    with pytest.raises(TamperError, match="'up'"):
        parse_disclosure(json.dumps(document).encode(), what="it").verify(ROOT)


def test_a_list_that_was_added_to_is_refused() -> None:
    document = json.loads(disclose(OTHER, ORIGINAL, NAMES, ["head"]).encode())
    document["commitments"] += tensor_commitments(KEY, NAMES)

    with pytest.raises(TamperError, match="list of commitments"):
        parse_disclosure(json.dumps(document).encode(), what="it").verify(ROOT)


def test_only_marked_tensors_can_be_shown() -> None:
    for shown in ([], ["bias"]):
        with pytest.raises(ValueError, match="shown are some"):
            disclose(KEY, ORIGINAL, NAMES, shown)


@pytest.mark.parametrize(
    "broken",
    [b"", b"[]", b"\xff", b"{}", disclose(KEY, ORIGINAL, NAMES, ["up"]).encode().replace(b"sure-1", b"sure-2")],
)
def test_what_is_no_disclosure_is_refused(broken: bytes) -> None:
    with pytest.raises(FormatError):
        parse_disclosure(broken, what="it")


def test_a_payload_that_was_chosen_later_is_refused() -> None:
    document = json.loads(disclose(KEY, ORIGINAL, NAMES, ["head"]).encode())
    document["payload"] = "ff" * 16

    with pytest.raises(TamperError, match="not the one that was committed to"):
        parse_disclosure(json.dumps(document).encode(), what="it").verify(ROOT)
