"""Every file in `sessions/` is a session as a person would type it."""

from pathlib import Path

import pytest

from tests.cli import session

SESSIONS = sorted((Path(__file__).parent / "sessions").glob("*.txt"))


@pytest.mark.slow
@pytest.mark.parametrize("path", SESSIONS, ids=lambda path: path.stem)
def test_a_session_prints_what_it_should(path: Path, folder: Path) -> None:
    session.run(session.parse(path.read_text(encoding="utf-8")), folder)
