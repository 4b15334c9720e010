"""The stages that there are."""

from palladion.redteam.audit.stages import STAGES


def test_names_are_words_of_their_own() -> None:
    names = [stage.name for stage in STAGES]
    assert len(set(names)) == len(names)
    assert all(name.replace("-", "").isalpha() and name.islower() for name in names)
    assert all(stage.share > 0 and stage.version >= 1 for stage in STAGES)
