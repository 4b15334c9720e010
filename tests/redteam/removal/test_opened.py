"""The trial of a sealed version: its original, what is served or a recipient's copy, and the owner's secrets."""

from pathlib import Path

import numpy as np
import pytest

from palladion.errors import ConflictError, NotFoundError
from palladion.lifecycle.protect import protect
from palladion.lifecycle.recipients import add_recipient
from palladion.mark.weights import find_ownership
from palladion.redteam.removal.opened import opened_trial
from palladion.redteam.removal.trial import run_trial
from palladion.seal.recipients import FileIdentity
from tests.lifecycle.installations import ACTOR, Made, make
from tests.models import onnx_bytes, safetensors_bytes, write
from tests.redteam.removal.test_trial import _attacks

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A version with a mark, one without, and two recipients."""
    folder: Path = tmp_path_factory.mktemp("opened")
    made = make(folder)
    for name, data in (("house", safetensors_bytes(1, size=256)), ("small", onnx_bytes())):
        protect(made.installation, made.owner, write(folder / f"{name}.bin", data), name, actor=ACTOR)
    for number, name in enumerate(("acme", "beta"), 0x31):
        identity = FileIdentity(bytes([number]) * 32)
        add_recipient(made.installation, name, str(identity.recipient), note="", actor=ACTOR)
    return made


def test_what_is_served_carries_the_mark(made: Made) -> None:
    with opened_trial(made.installation, made.owner, "house@1") as (trial, version):
        assert (version.model, version.number, trial.recipient) == ("house", 1, None)
        assert find_ownership(trial.original, trial.marked, trial.key).log10_p < -100
        (exact,) = run_trial(trial, None, seed=1, attacks=_attacks("exact copy"))
        assert (exact.payload_errors, exact.copy_log10_p) == (0, None)


def test_a_recipients_copy_carries_his_fingerprint_too(made: Made) -> None:
    with opened_trial(made.installation, made.owner, "house@1", recipient="acme") as (trial, _):
        (exact,) = run_trial(trial, None, seed=1, attacks=_attacks("exact copy"))
        assert exact.found
        assert exact.copy_log10_p is not None
        assert exact.copy_log10_p < -50
        ours = {name: np.array(item.data) for name, item in trial.marked.tensors.items()}
    with opened_trial(made.installation, made.owner, "house@1", recipient="beta") as (trial, _):
        assert not all(np.array_equal(ours[name], item.data) for name, item in trial.marked.tensors.items())


def test_what_has_no_mark_and_who_is_nobody(made: Made) -> None:
    with (
        pytest.raises(ConflictError, match="version 1 of small carries no mark"),
        opened_trial(made.installation, made.owner, "small@1"),
    ):
        pass
    with (
        pytest.raises(NotFoundError, match="no recipient 'nobody'"),
        opened_trial(made.installation, made.owner, "house@1", recipient="nobody"),
    ):
        pass
