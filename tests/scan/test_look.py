"""A scan spends what it is allowed, and keeps refusals among many findings."""

import pytest

from palladion.scan.content import examine
from palladion.scan.look import FINDINGS_MAX, Look, allowance
from palladion.scan.source import LimitError


def test_findings_are_few_and_a_refusal_is_among_them() -> None:
    look = Look(examine)
    for number in range(FINDINGS_MAX + 5):
        look.add("link", "it", str(number), "suspicious")
    look.add("format", "it", "refused")
    assert (len(look.findings), look.findings[-1].grade) == (FINDINGS_MAX, "refused")


def test_unpacking_has_an_end() -> None:
    look = Look(examine, unpacked_left=allowance(0))
    with pytest.raises(LimitError):
        look.unpack(allowance(0) + 1)
