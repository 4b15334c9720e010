"""Archives that readers see differently do not pass."""

from pathlib import Path

import pytest

from tests.scan.corpus.containers import containers
from tests.scan.corpus.run import accepted


@pytest.mark.slow
def test_odd_ones_are_reported(tmp_path: Path) -> None:
    odd = [sample for sample in containers() if sample.family == "zip"]
    assert len(odd) >= 2
    assert accepted(odd, tmp_path) == []
