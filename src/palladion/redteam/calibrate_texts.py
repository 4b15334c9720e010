"""Makes a calibration for a language model, from simulated clients who draw on prompts of known tasks.

The model is not asked: what the watch looks at is what clients send. The calibration is written, recorded, and used by
a gate whose policy names its digest.
"""

from collections.abc import Iterable, Iterator
from hashlib import sha256
from itertools import islice
from typing import TypeVar

import numpy as np

from palladion import files
from palladion.errors import PalladionError
from palladion.gate.chat.calibrated import path_of
from palladion.ledger.record import Record
from palladion.ledger.writer import Receipt
from palladion.lifecycle.installation import Installation
from palladion.redteam.calibrate import FIT_SHARE, Plan, Progress
from palladion.redteam.prompts import Prompts
from palladion.redteam.talk import honest_households, honest_talkers
from palladion.watch.calibration import MEMBER_SIZES, About
from palladion.watch.suspicion import CLIENTS_MIN, CORRELATION
from palladion.watch.text.calibration import TextCalibration, calibrate_texts
from palladion.watch.text.calibration_file import encode_text_calibration

_Item = TypeVar("_Item")


def calibrate_model(
    installation: Installation, model: str, prompts: Prompts, plan: Plan, *, actor: str, progress: Progress
) -> tuple[TextCalibration, str, Receipt]:
    """Calibrate the watch of a language model on talk made of `prompts`, write the calibration and record it.

    Returns its digest as well, which the policy has to name. Raises PalladionError where the prompts are too few.
    """
    # it has no version, and so no content that it would be bound to: the policy binds the file by its digest
    about = About(
        model,
        0,
        "",
        simulated=True,
        horizon=plan.horizon,
        group_horizon=plan.group_horizon,
        seed=plan.seed,
        created=installation.clock.now(),
    )
    try:
        calibration = _calibrated(about, prompts, plan, progress)
    except ValueError as error:
        raise PalladionError(f"these prompts cannot be calibrated on: {error}") from None
    data = encode_text_calibration(calibration)
    digest = sha256(data).hexdigest()
    target = path_of(installation.paths.calibrations, digest)
    with installation.recording(installation.open_gate_root()) as (ledger, _):
        files.make_private_directory(target.parent)
        files.write_atomically(target, data)
        made = calibration.about
        details = {
            "digest": digest,
            "simulated": made.simulated,
            "fitted": made.fitted,
            "clients": made.clients,
            "organisations": made.organisations,
            "seed": made.seed,
        }
        receipt = ledger.append([Record("watch.calibrated", made.created, actor, model, details)])[0]
    return calibration, digest, receipt


def _calibrated(about: About, prompts: Prompts, plan: Plan, progress: Progress) -> TextCalibration:
    generator = np.random.default_rng(plan.seed)
    talkers = honest_talkers(prompts, plan.clients, plan.horizon, generator)
    clients = (talker.conversation for talker in _told(talkers, plan.clients, "simulated clients", progress))
    households = honest_households(
        prompts, plan.organisations, max(MEMBER_SIZES), plan.group_horizon, generator, correlation=CORRELATION
    )
    organisations = (
        [member.conversation for member in members]
        for members in _told(households, plan.organisations, "simulated organisations", progress)
    )
    fitting = list(islice(clients, max(CLIENTS_MIN, int(plan.clients * FIT_SHARE))))
    return calibrate_texts(about, fitting, clients, organisations, generator)


def _told(items: Iterable[_Item], total: int, stage: str, progress: Progress) -> Iterator[_Item]:
    for done, item in enumerate(items):
        progress(done, total, stage)
        yield item
