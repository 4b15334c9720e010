"""The story of the demo, chapter by chapter. Every number that it prints was computed in the run that prints it."""

import shutil
import time
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from palladion.cli.output import print_table
from palladion.demo.customers import SUSPENDED, Account, Harvest, ask_all
from palladion.demo.stage import Stage
from palladion.demo.students import fidelity
from palladion.demo.table import LiveTable
from palladion.errors import InconclusiveError, MissingExtraError, PalladionError

SEED = 20261125
MODEL = "digits"
CLASSES = 10
CUSTOMERS, QUERIES = 10, 50  # of each honest customer
BUDGET = 1200  # queries of a thief, or of a ring together
RING = 4
BATCH = 5  # rows in each of a thief's requests: it is in a hurry
ROUTE, OPEN_ROUTE = "/v1/models/digits/predict", "/v1/models/digits/undefended"
# What the demo's policy asks for besides the defaults: act on simulated clients and on rings, and let a thief hurry.
SETTINGS = (
    ("listen", '"127.0.0.1:0"'),
    ("queries_per_second", "500.0"),
    ("burst", "2000"),
    ("simulated_may_enforce", "true"),
    ("suspend_campaigns", "true"),
)
RECIPIENTS = ("hospital-a", "hospital-b", "hospital-c")
WHO_LEAKS = "hospital-b"


@dataclass(frozen=True, eq=False)
class Digits:
    """Handwritten digits in three parts that share no picture: to train, to calibrate, and what customers send."""

    train: tuple[NDArray[np.float32], NDArray[np.int64]]
    validation: tuple[NDArray[np.float32], NDArray[np.int64]]
    customers: tuple[NDArray[np.float32], NDArray[np.int64]]


def tell(folder: Path | None) -> None:
    """Tell it all, in under a minute. Raises InconclusiveError if something did not go as it should."""
    started = time.monotonic()
    stage = Stage(folder)
    digits = _digits()
    _protect(stage, digits)
    _calibrate(stage, digits)
    _deliver(stage)
    with stage.serving() as url:
        harvests = _traffic(stage, digits, url)
        _results(stage, digits, harvests)
    stage.run("incident list")
    _leak(stage, digits)
    _ledger(stage)
    _ending(stage, time.monotonic() - started)


def _digits() -> Digits:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingExtraError(f"the demo needs {error.name}", "pip install 'palladion[demo]'") from None
    pictures = load_digits()
    order = np.random.default_rng(SEED).permutation(len(pictures.target))
    rows, labels = pictures.data.astype(np.float32)[order], pictures.target.astype(np.int64)[order]
    first, second, third = ((rows[part], labels[part]) for part in (slice(0, 600), slice(600, 1200), slice(1200, None)))
    return Digits(first, second, third)


def _protect(stage: Stage, digits: Digits) -> None:
    stage.chapter(
        "1. A model worth protecting",
        "A classifier of handwritten digits is trained, scanned, marked, sealed, signed, recorded; the plaintext goes.",
    )
    path = stage.folder / "digits.onnx"
    train_model(path, digits.train, seed=SEED)
    stage.say(f"{path.name}: {path.stat().st_size:,} bytes, trained on {len(digits.train[1])} pictures")
    (stage.folder / "passphrase").write_text("only for this demo\n")
    (stage.folder / "passphrase").chmod(0o600)
    stage.run("init --passphrase-file passphrase --host-identity host.identity")
    stage.run(f"protect digits.onnx --name {MODEL} --passphrase-file passphrase --delete-plaintext")
    stage.say(f"files here that a model reader can open: {_readable_models(stage.folder)}")


def train_model(path: Path, data: tuple[NDArray[np.float32], NDArray[np.int64]], *, seed: int) -> None:
    """Train a small classifier on (rows, labels) and export it to ONNX at `path`."""
    try:
        from skl2onnx import to_onnx
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.neural_network import MLPClassifier
    except ImportError as error:
        raise MissingExtraError(f"the demo needs {error.name}", "pip install 'palladion[demo]'") from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        classifier = MLPClassifier((64, 32), max_iter=200, random_state=seed % 2**32).fit(*data)
    path.write_bytes(to_onnx(classifier, data[0][:1], options={"zipmap": False}).SerializeToString())


def _calibrate(stage: Stage, digits: Digits) -> None:
    stage.chapter(
        "2. What honest traffic looks like",
        "The watch is calibrated on whole clients. Here they are simulated, and the policy opts in to act on that.",
    )
    rows, labels = digits.validation
    np.savez(stage.folder / "validation.npz", x=rows, y=labels)
    policy = stage.folder / "palladion.toml"
    text = policy.read_text()
    for setting, value in SETTINGS:
        text = _set(text, setting, value)
        stage.say(f"palladion.toml: {setting} = {value}")
    routes = (
        f'\n[[route]]\nmodel = "{MODEL}"\nmode = "enforce"\n\n'
        f'# the same attack without defences, to compare\n[[route]]\nmodel = "{MODEL}"\npath = "{OPEN_ROUTE}"\n'
    )
    policy.write_text(text + routes)
    stage.say("palladion.toml: two [[route]] tables, one to enforce and one that only observes")
    stage.run(f"watch calibrate {MODEL} --validation validation.npz --image 8x8 --no-curve")


def _deliver(stage: Stage) -> None:
    stage.chapter(
        "3. Copies for three recipients", "Each copy computes the same and carries its recipient's own fingerprint."
    )
    for name in RECIPIENTS:
        key = stage.quietly("recipient", "new", str(stage.folder / f"{name}.identity"))["recipient"]
        stage.quietly("recipient", "add", name, key)
    secret = str(stage.folder / "passphrase")
    for name in RECIPIENTS:
        if name == WHO_LEAKS:
            stage.run(f"deliver {MODEL} --to {name} --out {name}.sealed --passphrase-file passphrase")
        else:
            out = str(stage.folder / f"{name}.sealed")
            stage.quietly("deliver", MODEL, "--to", name, "--out", out, "--passphrase-file", secret)
            stage.say(f"{name}.sealed: delivered to {name} likewise")


def _traffic(stage: Stage, digits: Digits, url: str) -> dict[str, list[Harvest]]:
    stage.chapter(
        "4. Traffic over HTTP",
        f"{CUSTOMERS} honest customers, a thief, and a ring of {RING} accounts that share one harvest.",
    )
    accounts = _accounts(stage, digits)
    with LiveTable(stage.folder):
        got = ask_all(url, [account for group in accounts.values() for account in group], classes=CLASSES)
    by_name = {harvest.account.name: harvest for harvest in got}
    return {name: [by_name[account.name] for account in group] for name, group in accounts.items()}


def _accounts(stage: Stage, digits: Digits) -> dict[str, list[Account]]:
    from palladion.redteam.thieves import ring, thief
    from palladion.redteam.traffic import Pool, honest_clients

    generator = np.random.default_rng(SEED)
    pool = Pool(*digits.customers, (8, 8))
    honest = list(honest_clients(pool, CUSTOMERS, QUERIES, generator))
    lone = thief("foreign", pool, BUDGET, generator)
    together = ring("strokes", pool, RING, BUDGET // RING, generator)

    def account(name: str, address: int, rows: NDArray[np.float32], path: str, batch: int) -> Account:
        key = stage.quietly("client", "add", name, "--model", MODEL)["key"]
        return Account(name, key, f"127.0.0.{address}", path, rows, batch)

    return {
        "customers": [
            replace(account(f"customer-{i}", 10 + i, who.rows, ROUTE, 1), truth=who.labels)
            for i, who in enumerate(honest)
        ],
        "thief": [account("thief", 50, lone.rows, ROUTE, BATCH)],
        "ring": [account(f"ring-{i}", 60, who.rows, ROUTE, BATCH) for i, who in enumerate(together)],
        "thief, undefended": [account("thief-undefended", 70, lone.rows, OPEN_ROUTE, BATCH)],
        "ring, undefended": [
            account(f"ring-undefended-{i}", 80, who.rows, OPEN_ROUTE, BATCH) for i, who in enumerate(together)
        ],
    }


def _results(stage: Stage, digits: Digits, harvests: dict[str, list[Harvest]]) -> None:
    stage.chapter(
        "5. What came of it",
        "Fidelity: how often a student, trained on what was answered, names the class the model does.",
    )
    rows, truth = digits.customers
    victim = _served_labels(stage, rows)
    standings = {
        item["client"].partition("/")[2]: item["standing"] for item in stage.quietly("client", "list")["clients"]
    }
    honest = harvests["customers"]
    disturbed = [item.account.name for item in honest if standings[item.account.name] not in {"trusted", "watched"}]
    right, asked = _accuracy(honest)
    alone = _served_labels(stage, np.concatenate([item.account.rows[: item.answered] for item in honest]))
    same = int((alone == np.concatenate([item.labels for item in honest])).sum())
    stage.say(f"honest customers: {right / asked:.1%} of {asked} pictures answered right; each has a style of its own,")
    stage.say(f"  and on pictures without one it is {(victim == truth).mean():.1%}")
    stage.say(f"  {same} of {len(alone)} answers are those that the model gives without a gate")
    stage.say(f"  {len(disturbed)} of {len(honest)} were disturbed (fell below watched) {', '.join(disturbed)}")
    table = []
    for name in ("thief", "ring"):
        for label, key in (("defended", name), ("defences off", f"{name}, undefended")):
            got = harvests[key]
            answered = sum(item.answered for item in got)
            ended = sum(item.refused_with == SUSPENDED for item in got)
            asked_rows = np.concatenate([item.account.rows[: item.answered] for item in got])
            scores = np.concatenate([item.scores for item in got])
            agrees = fidelity(asked_rows, scores, rows, victim)
            table.append((name, label, answered, f"{ended} of {len(got)} accounts", f"{agrees:.1%}"))
    print_table(("attacker", "gate", "queries answered", "suspended", "student's fidelity"), table)
    if disturbed or any(item.refused_with != SUSPENDED for item in harvests["thief"] + harvests["ring"]):
        stage.say("not as expected this time: the counts above are what happened")


def _accuracy(honest: list[Harvest]) -> tuple[int, int]:
    """Right answers, and pictures that show something, of all honest customers."""
    right = asked = 0
    for item in honest:
        if item.account.truth is not None:
            truth = item.account.truth[: item.answered]
            right += int((item.labels == truth)[truth >= 0].sum())
            asked += int((truth >= 0).sum())
    return right, asked


def _served_labels(stage: Stage, rows: NDArray[np.float32]) -> NDArray[np.int64]:
    """What the served version, opened in memory, says of `rows` (n, inputs)."""
    from palladion.clock import SystemClock
    from palladion.lifecycle.installation import Installation
    from palladion.lifecycle.open import open_version
    from palladion.model.run import open_session

    with open_version(Installation.find(stage.folder, SystemClock()), MODEL) as opened:
        session = open_session(opened.model)
    labels: NDArray[np.int64] = session.run({session.inputs[0].name: rows})[session.outputs[0].name]
    return labels


def _leak(stage: Stage, digits: Digits) -> None:
    stage.chapter(
        "6. A copy leaks",
        f"{WHO_LEAKS} opens its copy, rounds the weights to int8, and puts it on the net without a name.",
    )
    stage.run(f"unseal {WHO_LEAKS}.sealed --identity {WHO_LEAKS}.identity --out opened.onnx --reason demo")
    _round_to_int8(stage.folder / "opened.onnx", stage.folder / "leaked.onnx")
    (stage.folder / "opened.onnx").unlink()
    stage.run(f"prove copy leaked.onnx --reference {MODEL}@1 --passphrase-file passphrase", exit_code=1)
    train_model(stage.folder / "unrelated.onnx", digits.validation, seed=SEED + 1)
    stage.say("and a model of the same kind that somebody else trained:")
    stage.run(f"prove copy unrelated.onnx --reference {MODEL}@1 --passphrase-file passphrase")


def _round_to_int8(source: Path, target: Path) -> None:
    """Round every large tensor to 255 steps, as quantisation does, in place of its numbers."""
    from palladion.model.read import read_file
    from palladion.model.rewrite import rewrite
    from palladion.model.tensors import Tensor

    def rounded(tensor: Tensor) -> Any:
        if tensor.dtype.name != "float32" or tensor.element_count < CLASSES**2:
            return None
        step = np.abs(tensor.data).max() / 127
        return np.round(tensor.data / step) * step

    (contents,) = rewrite(read_file(source), rounded).values()
    target.write_bytes(contents)


def _ledger(stage: Stage) -> None:
    stage.chapter(
        "7. The ledger", "Every step and every answer is a record; a copy with one changed byte is found out."
    )
    stage.run("ledger verify")
    shutil.copytree(stage.folder / ".palladion" / "ledger", stage.folder / "forged-ledger")
    bundle = max((stage.folder / "forged-ledger" / "tile" / "entries").rglob("*"), key=_age_of_bundle)
    data = bytearray(bundle.read_bytes())
    place = data.rindex(b'"queries":') + len(b'"queries":')
    data[place] = ord("9") if data[place] != ord("9") else ord("8")
    bundle.write_bytes(data)
    stage.say("in a copy, one digit of one answer's record is changed:")
    stage.run("ledger verify --ledger forged-ledger", exit_code=1)


def _ending(stage: Stage, seconds: float) -> None:
    click.echo()
    click.echo(f"Done in {seconds:.0f} s, seed {SEED}. Everything lies in {stage.folder}")
    click.echo("Your own model, in a folder of your choice:")
    for line in (
        "palladion init",
        "palladion protect YOUR-MODEL.onnx --name NAME --delete-plaintext",
        "palladion watch calibrate NAME --validation YOUR-DATA.npz",
        "palladion client add CUSTOMER",
        "printf '[[route]]\\nmodel = \"NAME\"\\n' >> palladion.toml && palladion serve",
    ):
        click.echo(f"  {line}")
    click.echo("More in README.md, step by step.")


def _readable_models(folder: Path) -> int:
    """How many files below `folder` can be read as a model: what somebody who copies the disk could use."""
    from palladion.model.read import read_file

    count = 0
    for path in folder.rglob("*"):
        # a calibration is a table of statistics in a container that weights come in as well
        if path.is_file() and path.parent.parent.name != "calibrations":
            try:
                read_file(path)
                count += 1
            except PalladionError:
                continue
    return count


def _set(text: str, setting: str, value: str) -> str:
    """The policy with a setting of its template uncommented and given a value."""
    lines = text.splitlines(keepends=True)
    place = next((index for index, line in enumerate(lines) if line.startswith(f"# {setting} = ")), None)
    if place is None:
        raise InconclusiveError(f"the policy template has no setting {setting!r}")
    lines[place] = f"{setting} = {value}\n"
    return "".join(lines)


def _age_of_bundle(path: Path) -> tuple[bool, int, int]:
    """Sorts files of entries: the newest bundle last, and of its partial forms the widest."""
    number = path.parent.name if path.parent.suffix == ".p" else path.name
    index = number.removesuffix(".p").lstrip("x")
    width = int(path.name) if path.parent.suffix == ".p" else 256
    return path.is_file(), int(index) if index.isdigit() else -1, width
