"""What does a dossier cost to make and to check, how large is it, and does a flipped bit ever pass?

A case of two accounts in a ledger of many answers, most given to others. Flips are drawn over the whole package,
and again within members whose archive was made to fit, so that no checksum of the archive finds them.
"""

import json
import tempfile
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from hashlib import sha256, sha512
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from bench.report import Report, interleaved, main
from palladion.access.pseudonyms import pseudonym
from palladion.clock import ManualClock
from palladion.incident.cases import opened_record, suspend_case
from palladion.incident.custody import Handling, record_custody
from palladion.incident.dossier.gather import Gathered, Wishes, gather
from palladion.incident.dossier.package import About, build
from palladion.incident.dossier.render import render
from palladion.incident.dossier.verifier.archive import archive, read_archive
from palladion.incident.dossier.verifier.check import check
from palladion.incident.dossier.verifier.findings import DossierError
from palladion.keys import Root
from palladion.ledger.record import Record
from palladion.lifecycle.clients import add_client
from palladion.lifecycle.create import Plan, create_installation
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.protect import protect
from palladion.seal.recipients import FileIdentity

ACTOR = "user:bench"
START = datetime(2026, 11, 24, tzinfo=UTC)
OWNER = FileIdentity(b"\x11" * 32)
OTHERS = 200  # accounts besides the two of the case
BATCH = 1000
FLIPS = 1000


def measure(report: Report) -> None:
    """All rows of the table."""
    missing = [name for name in ("typst", "rfc3161_client", "pyhanko") if find_spec(name) is None]
    if missing:
        report.skip(f"everything: {', '.join(missing)} of the extra dossier")
        return
    answers = 5_000 if report.quick else 100_000
    with tempfile.TemporaryDirectory() as folder:
        installation, owner, clock = _made(Path(folder))
        case = _case(installation, owner, clock, Path(folder), answers)
        _measured(report, installation, owner, case, answers)


def _measured(report: Report, installation: Installation, owner: Root, case: str, answers: int) -> None:
    signer, gate = owner.signer("publisher"), installation.open_gate_root()

    def gathered() -> Gathered:
        return gather(installation, case, Wishes(), gate=gate, publisher=signer.public_key, actor=ACTOR)

    told = gathered()
    dossier, document = told.dossier, told.dossier.encode()
    pdf = render(document)
    about = About(dossier.case.id, dossier.made, dossier.log.key)
    contents = {**told.evidence, "dossier.json": document, "dossier.pdf": pdf}
    package = build(contents, about, signer)
    times = interleaved(
        {
            "read": lambda: [index for index, _ in installation.read_ledger().entries()],
            "gather": gathered,
            "render": lambda: render(document),
            "build": lambda: build(contents, about, signer),
            "check": lambda: check(package),
            "hash": lambda: (sha256(package).digest(), sha512(package).digest()),
        },
        repeats=3 if report.quick else 5,
    )
    entries = dossier.log.size
    read, gather_, hashed = times["read"], times["gather"], times["hash"]
    report.add(f"read and prove {entries} entries", read.median, "s CPU", reference=read.noise)
    reference = gather_.beside(read, "reading and proving them")
    report.add(f"gather {len(dossier.evidence)} entries of {entries}", gather_.median, "s CPU", reference=reference)
    report.add("SHA-256 and SHA-512 of the package", hashed.median * 1e3, "ms CPU", reference=hashed.noise)
    for name, what in (
        ("render", "set the PDF/A-3b"),
        ("build", "sign, pack and check"),
        ("check", "check it offline"),
    ):
        reference = times[name].beside(hashed, "hashing the package")
        report.add(what, times[name].median * 1e3, "ms CPU", reference=reference)
    shares = f"PDF {len(pdf) / len(package):.0%}, evidence {_size(told.evidence) / len(package):.0%}"
    report.add("size of the package", len(package) / 1024, "KiB", reference=shares)
    same = build(contents, about, signer) == package and render(document) == pdf
    report.at_least("made twice, the same bytes", float(same), "of 1", 1)
    _flips(report, package)


def _flips(report: Report, package: bytes) -> None:
    generator = np.random.default_rng(report.seed)
    places = generator.choice(len(package) * 8, FLIPS, replace=False).tolist()
    started = time.process_time()
    found = sum(_refused(_flipped(package, place)) for place in places)
    each = (time.process_time() - started) / FLIPS
    report.at_least(
        f"flipped bits of {FLIPS} that are found", found, "flips", FLIPS, reference=f"{each * 1e3:.2g} ms each"
    )
    members = read_archive(package)
    names, count = sorted(members), 200 if report.quick else FLIPS
    found = 0
    for number in range(count):
        name = names[number % len(names)]
        place = int(generator.integers(len(members[name]) * 8))
        found += _refused(archive({**members, name: _flipped(members[name], place)}))
    report.at_least(f"the same of {count} in members, archive made to fit", found, "flips", count)


def _refused(package: bytes) -> bool:
    try:
        check(package)
    except DossierError:
        return True
    return False


def _flipped(data: bytes, place: int) -> bytes:
    changed = bytearray(data)
    changed[place // 8] ^= 1 << place % 8
    return bytes(changed)


def _size(evidence: Mapping[str, bytes]) -> int:
    return sum(map(len, evidence.values()))


def _made(folder: Path) -> tuple[Installation, Root, ManualClock]:
    home, clock = folder / "home", ManualClock(START)
    home.mkdir()
    plan = Plan(home, str(folder / "host.identity"), ())
    installation = create_installation(plan, [OWNER.recipient], [], actor=ACTOR, clock=clock)
    return installation, installation.open_owner_root([OWNER]), clock


def _case(installation: Installation, owner: Root, clock: ManualClock, folder: Path, answers: int) -> str:
    """A model, two accounts that ask among many, and a suspect in custody; the id of the case."""
    path = folder / "model.safetensors"
    path.write_bytes(_model())
    protect(installation, owner, path, "model", actor=ACTOR)
    clients = [
        add_client(installation, "acme", name, models=["model"], environment="live", expires=None, actor=ACTOR)[0]
        for name in ("one", "two")
    ]
    gate = installation.open_gate_root()
    key = gate.derive("pseudonyms")
    names = [pseudonym(key, client.id) for client in clients] + [pseudonym(key, str(n)) for n in range(OTHERS)]
    with installation.open_ledger(gate) as ledger:
        for start in range(0, answers, BATCH):
            ledger.append([_answer(clock, names[n % len(names)], n) for n in range(start, min(start + BATCH, answers))])
    with installation.recording(gate) as (ledger, records):
        case = suspend_case(records, [client.id for client in clients], reason="campaign", actor="gate").case
        ledger.append([opened_record(case)])
    handling = Handling("acquired", "bench", "here", clock.now())
    record_custody(installation, case.id, [str(path)], handling, keep=None, actor=ACTOR)
    return case.id


def _answer(clock: ManualClock, name: str, number: int) -> Record:
    clock.advance(timedelta(milliseconds=1))
    details = {"request": f"{number:032x}", "route": "/v1/model", "queries": 8, "request_digest": "cd" * 32}
    return Record("answer.given", clock.now(), name, "model@1", details)


def _model() -> bytes:
    """A safetensors file with one matrix, by hand: the bench needs no library for that."""
    matrix = np.random.default_rng(1).standard_normal((64, 64)).astype("<f4").tobytes()
    header = json.dumps({"w": {"dtype": "F32", "shape": [64, 64], "data_offsets": [0, len(matrix)]}}).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + matrix


if __name__ == "__main__":
    main("dossier", (__doc__ or "").splitlines()[0], measure)
