"""`palladion serve --broker` says what it cannot do before it opens anything. (What it does: tests/gate.)"""

from pathlib import Path

import pytest

from palladion.cli.main import main
from tests.lifecycle.installations import make

pytestmark = pytest.mark.slow  # an installation


def test_a_sealed_program_for_encrypted_queries_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    made = make(tmp_path)
    path = made.installation.paths.policy
    path.write_text(path.read_text() + '\n[[encrypted]]\nmodel = "scores"\n')

    assert main(["--home", str(made.home), "serve", "--broker", "https://127.0.0.1:1"]) == 2
    said = capfd.readouterr().err
    assert "[[encrypted]] scores: a sealed program is opened with the gate's own key" in said
    assert "without --broker" in said
