"""Cedar decides who has which key; what is broken, or fails, permits nothing."""

from pathlib import Path
from typing import Any

import pytest

from palladion.broker.permission import Permission, Question
from palladion.errors import PolicyError, StorageError

QUESTION = Question("acme", "web", "trusted", "fraud", 3, "ab" * 16, "lab", "exec", attested=True, approvals=2)


def permits(tmp_path: Path, text: str, **changes: Any) -> bool:
    path = tmp_path / "broker.cedar"
    path.write_text(text)
    return Permission(path).permits(QUESTION._replace(**changes))


@pytest.mark.parametrize(
    "condition",
    [
        'principal == Client::"acme/web"',
        'principal in Organisation::"acme"',
        'resource in Model::"fraud"',
        f'resource == File::"{"ab" * 16}"',
        "resource.version >= 3",
        'resource.recipient == "lab"',
        'context.purpose == "exec"',
        "context.attested",
        "context.approvals >= 2",
        'principal.standing == "trusted"',
    ],
)
def test_a_policy_can_speak_of_everything(tmp_path: Path, condition: str) -> None:
    other = {
        "organisation": "x", "name": "y", "standing": "watched", "model": "other", "version": 2, "file_id": "cd" * 16,
        "recipient": "other", "purpose": "serve", "attested": False, "approvals": 1,
    }  # fmt: skip
    text = f"permit (principal, action, resource) when {{ {condition} }};"

    assert permits(tmp_path, text)
    assert not permits(tmp_path, text, **other)


def test_nothing_is_permitted_that_no_policy_permits_and_forbid_wins(tmp_path: Path) -> None:
    allow = "permit (principal, action, resource);"

    assert not permits(tmp_path, "")
    assert permits(tmp_path, allow)
    assert not permits(tmp_path, allow + "forbid (principal, action, resource) when { resource.version == 3 };")


def test_a_forbid_that_fails_lets_nobody_in(tmp_path: Path) -> None:
    fails = f"forbid (principal, action, resource) when {{ resource.version + {2**63 - 1} > 0 }};"

    assert not permits(tmp_path, "permit (principal, action, resource);" + fails)


@pytest.mark.parametrize(
    "text",
    [
        "permit (",
        "permit (principal, action, resource) when { context.nothing };",
        'permit (principal, action == Action::"ask", resource);',
        "permit (principal == ?principal, action, resource);",
        "\udcff",
    ],
    ids=["broken", "no such attribute", "another action", "template", "bytes"],
)
def test_policies_that_cannot_be_used_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broker.cedar"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))

    with pytest.raises(PolicyError):
        Permission(path)


def test_a_change_counts_at_once_and_a_broken_or_missing_file_permits_nothing(tmp_path: Path) -> None:
    path = tmp_path / "broker.cedar"
    path.write_text("permit (principal, action, resource);")
    permission = Permission(path)
    assert permission.permits(QUESTION)
    path.write_text('permit (principal == Client::"a/b", action, resource);')
    assert not permission.permits(QUESTION)
    path.write_text("permit (")
    for _ in range(2):
        with pytest.raises(PolicyError):
            permission.permits(QUESTION)
    path.unlink()
    with pytest.raises(StorageError):
        permission.permits(QUESTION)
