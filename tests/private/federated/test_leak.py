"""Ten sites with a copy each: a leak names its site, also after somebody has trained it a little further."""

from pathlib import Path

import numpy as np
import pytest

from palladion.lifecycle.federated import Federation
from palladion.lifecycle.prove import prove
from palladion.lifecycle.recipients import add_recipient
from palladion.model.read import read_memory
from palladion.private.federated.layout import Layout
from palladion.seal.recipients import FileIdentity
from tests.lifecycle.installations import ACTOR, make

from .house import name_of, terms_of

SITES = 10
LAYOUT = Layout({"first": (128, 64), "bias": (64,), "second": (64, 64)})


@pytest.mark.slow
@pytest.mark.parametrize("trained", [0.0, 0.05])
def test_a_leaked_copy_of_ten_names_its_site_alone(tmp_path: Path, trained: float) -> None:
    from safetensors.numpy import save

    generator = np.random.default_rng(5)
    start = generator.standard_normal(LAYOUT.size).astype(np.float32)
    made = make(tmp_path)
    for number in range(SITES):
        identity = FileIdentity(bytes([0x41 + number]) * 32)
        add_recipient(made.installation, name_of(number), str(identity.recipient), note="", actor=ACTOR)
    terms = terms_of(SITES, size=LAYOUT.size)
    federation = Federation(made.installation, made.owner, terms, LAYOUT, "house", tmp_path / "scratch", ACTOR)
    federation.check()
    copy_for = federation.copies(1, start)
    for number in (0, 7):
        leaked = copy_for(name_of(number), start)
        # training moves every number a little: by this share of what the numbers are
        leaked = leaked + np.float32(trained) * generator.standard_normal(LAYOUT.size).astype(np.float32)
        file = {"leak.safetensors": save(LAYOUT.unpacked(leaked))}
        tested = prove(made.installation, made.owner, read_memory(file), [], copies=True, actor=ACTOR)
        assert [who.recipient for who in tested[0].accused] == [name_of(number)]
