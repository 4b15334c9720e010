"""`palladion demo`: the product at work on a model trained in the same minute, through the real command line."""

import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click

from palladion.errors import InconclusiveError, MissingExtraError

SEED = 20261124
MODEL = "digits"


@click.command(epilog="Example: palladion demo --folder ./palladion-demo")
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the demo's files go; it must be new. Without it, a new folder among the temporary files.",
)
def demo(folder: Path | None) -> None:
    """Protect a small classifier, open it, and catch a forged ledger, in under a minute.

    Trains on handwritten digits that scikit-learn brings along; needs the `demo` extra and no network.
    """
    started = time.monotonic()
    if folder is None:
        folder = Path(tempfile.mkdtemp(prefix="palladion-demo-"))
    else:
        folder.mkdir(parents=True)
    shell = _Shell(folder)

    _say("1. A model worth protecting", "A classifier for handwritten digits, trained now and exported to ONNX.")
    images, expected = _train(folder / "digits.onnx")
    click.echo(f"   {folder / 'digits.onnx'}: {(folder / 'digits.onnx').stat().st_size:,} bytes")

    _say("2. Protect it", "Scanned, sealed, signed, recorded as version 1; the plaintext file goes.")
    (folder / "passphrase").write_text("only for this demo\n")
    (folder / "passphrase").chmod(0o600)
    shell.run("init --passphrase-file passphrase --host-identity host.identity")
    shell.run(f"protect digits.onnx --name {MODEL} --passphrase-file passphrase --delete-plaintext")
    shell.run(f"model show {MODEL}")

    _say("3. Look at what lies on the disk", "The sealed file says who may open it, and nothing about the weights.")
    shell.run(f"inspect .palladion/sealed/{MODEL}/1.sealed")
    shell.run(f"verify {MODEL}")
    left = _readable_models(folder)
    click.echo(f"   files here that a model reader can open: {left}")

    _say("4. Open it in memory", "Signature, key and digests are checked before the first number is handed out.")
    agreeing = _agreeing(folder, images, expected)
    click.echo(f"   {agreeing} of {len(images)} answers are those of the original")

    _say("5. The ledger", "Every step is a record; a copy with one changed byte is found out.")
    shell.run("ledger verify")
    _forge(folder)
    shell.run("ledger verify --ledger forged-ledger", exit_code=1)

    click.echo()
    click.echo(f"Done in {time.monotonic() - started:.0f} s. Everything lies in {folder}")
    click.echo("Your own model, in a folder of your choice:")
    for line in ("palladion init", "palladion protect YOUR-MODEL.onnx --name NAME", "palladion model list"):
        click.echo(f"  {line}")
    if left or agreeing != len(images):
        raise InconclusiveError("the demo did not end as it should: see the figures above")


class _Shell:
    """Runs palladion as a person would, in a process of its own, and shows what it printed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def run(self, arguments: str, *, exit_code: int = 0) -> None:
        click.secho(f"   $ palladion {arguments}", bold=True)
        command = [sys.executable, "-m", "palladion", *shlex.split(arguments)]
        # standard error stays on our own terminal's, so that progress bars show
        ended = subprocess.run(command, cwd=self._folder, capture_output=True, text=True, check=False)  # noqa: S603
        for line in (ended.stdout + ended.stderr).splitlines():
            click.echo(f"   {line}")
        if ended.returncode != exit_code:
            raise InconclusiveError(f"palladion {arguments} ended with {ended.returncode}, expected {exit_code}")


def _say(title: str, explanation: str) -> None:
    click.echo()
    click.secho(title, bold=True)
    click.echo(f"   {explanation}")


def _train(path: Path) -> tuple[Any, Any]:
    """Train and export the classifier; returns held-out images (n, 64) and the original's labels for them (n,)."""
    try:
        import numpy as np
        from skl2onnx import to_onnx
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
        from sklearn.neural_network import MLPClassifier
    except ImportError as error:
        raise MissingExtraError(f"the demo needs {error.name}", "pip install 'palladion[demo]'") from None
    digits = load_digits()
    x_train, x_test, y_train, _ = train_test_split(
        digits.data.astype(np.float32), digits.target, test_size=0.3, random_state=SEED
    )
    classifier = MLPClassifier((64, 32), max_iter=300, random_state=SEED).fit(x_train, y_train)
    model = to_onnx(classifier, x_train[:1], options={"zipmap": False})
    path.write_bytes(model.SerializeToString())
    return x_test, classifier.predict(x_test)


def _readable_models(folder: Path) -> int:
    """How many files below `folder` can be read as a model: what somebody who copies the disk could use."""
    from palladion.errors import PalladionError
    from palladion.model.read import read_file

    count = 0
    for path in folder.rglob("*"):
        if path.is_file():
            try:
                read_file(path)
                count += 1
            except PalladionError:
                continue
    return count


def _agreeing(folder: Path, images: Any, expected: Any) -> int:
    """How many of the served model's answers are those that the original gave."""
    from palladion.clock import SystemClock
    from palladion.lifecycle.installation import Installation
    from palladion.lifecycle.open import open_version
    from palladion.model.run import open_session

    with open_version(Installation.find(folder, SystemClock()), MODEL) as opened:
        session = open_session(opened.model)
    labels = session.run({session.inputs[0].name: images})[session.outputs[0].name]
    return int((labels == expected).sum())


def _forge(folder: Path) -> None:
    """Copy the ledger and change one letter of one entry in the copy."""
    shutil.copytree(folder / ".palladion" / "ledger", folder / "forged-ledger")
    partial = (folder / "forged-ledger" / "tile" / "entries" / "000.p").iterdir()
    bundle = max(partial, key=lambda path: int(path.name))  # the newest: the one that the checkpoint covers
    bundle.write_bytes(bundle.read_bytes().replace(b"digits@1", b"digits@2", 1))
