"""ONNX graphs of foreign operators do not pass."""

from pathlib import Path

import pytest

from tests.scan.corpus.models import models
from tests.scan.corpus.run import accepted


@pytest.mark.slow
def test_odd_ones_are_reported(tmp_path: Path) -> None:
    odd = [sample for sample in models() if sample.family == "onnx"]
    assert len(odd) >= 2
    assert accepted(odd, tmp_path) == []
