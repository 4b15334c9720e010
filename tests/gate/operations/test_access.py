"""The file of access policies: opened and named by what was read once, and a sentence where that cannot be."""

from hashlib import sha256
from pathlib import Path

import msgspec
import pytest

from palladion.access.cedar import POLICIES_BYTES_MAX
from palladion.errors import PolicyError
from palladion.gate.operations.access import Access, open_access, read_digests
from palladion.policy import AccessPolicy, Policy, RoutePolicy

TEXT = b"permit(principal, action, resource);"
NAME = "access.policies (a.cedar)"
POLICY = Policy(access=AccessPolicy(policies="a.cedar"), route=(RoutePolicy(model="fraud"),))


def test_without_a_file_scopes_alone_decide() -> None:
    assert open_access(Policy(), Path()) == Access(None, {})
    assert read_digests(Policy(), Path()) == {}


def test_what_is_opened_is_named_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "a.cedar").write_bytes(TEXT)
    opened = open_access(POLICY, tmp_path)
    assert opened.cedar is not None
    assert opened.digests == read_digests(POLICY, tmp_path) == {NAME: sha256(TEXT).hexdigest()}
    elsewhere = msgspec.structs.replace(POLICY, access=AccessPolicy(policies=str(tmp_path / "a.cedar")))
    assert open_access(elsewhere, Path("/")).cedar is not None


@pytest.mark.parametrize("data", [None, b" " * (POLICIES_BYTES_MAX + 1)])
def test_a_file_that_cannot_be_read_is_a_sentence_that_names_the_setting(tmp_path: Path, data: bytes | None) -> None:
    if data is not None:
        (tmp_path / "a.cedar").write_bytes(data)
    with pytest.raises(PolicyError, match=r"a\.cedar"):
        open_access(POLICY, tmp_path)
    assert read_digests(POLICY, tmp_path) == {NAME: ""}
