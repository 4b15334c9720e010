"""One case for all tests of this folder, and its dossier; nobody changes either."""

import pytest

from palladion.incident.dossier.gather import Gathered, Wishes, gather
from palladion.incident.dossier.package import About, build
from palladion.incident.dossier.render import render
from tests.lifecycle.installations import ACTOR

from .stories import Story, tell


@pytest.fixture(scope="session")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    """The case."""
    return tell(tmp_path_factory.mktemp("story"))


@pytest.fixture(scope="session")
def gathered(story: Story) -> Gathered:
    """What its dossier says."""
    made = story.made
    return gather(
        made.installation,
        story.case,
        Wishes(),
        gate=made.installation.open_gate_root(),
        publisher=made.owner.signer("publisher").public_key,
        actor=ACTOR,
    )


@pytest.fixture(scope="session")
def contents(gathered: Gathered) -> dict[str, bytes]:
    """The members that a package is built from."""
    pytest.importorskip("typst", reason="a dossier needs the dossier extra: pip install 'palladion[dossier]'")
    document = gathered.dossier.encode()
    return {**gathered.evidence, "dossier.json": document, "dossier.pdf": render(document)}


@pytest.fixture(scope="session")
def about(gathered: Gathered) -> About:
    """What its manifest says."""
    dossier = gathered.dossier
    return About(dossier.case.id, dossier.made, dossier.log.key)


@pytest.fixture(scope="session")
def package(story: Story, contents: dict[str, bytes], about: About) -> bytes:
    """The dossier, without time stamps."""
    return build(contents, about, story.made.owner.signer("publisher"))
