"""Keys of marked text, one for each tenant and epoch, and the test of a text against all that were ever given out.

A key that was given is on record, so that a test pays for every key there is, and not for those that are suspected.
"""

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from palladion import files
from palladion.errors import ConflictError, FormatError, NotFoundError, StorageError
from palladion.keys import Root
from palladion.ledger.record import Record, decode_record
from palladion.lifecycle.installation import Installation
from palladion.mark.text.engines import Engine, engine_chance, engine_key, engine_settings
from palladion.mark.text.gumbel import Chance, KeyedChance, TextFinding, Tokens, text_key, trace_text

SCHEME = "text-1"
NAME = re.compile(r"[\w.@-]{1,64}")
PURPOSE = "text-marks"
KEY_GIVEN = "text.key-given"
KEY_FILE_BYTES_MAX = 4096


@dataclass(frozen=True)
class Given:
    """A key that was given out: whose text it marks, since which epoch, in which engine (None: our own sampler)."""

    tenant: str
    epoch: str
    engine: Engine | None

    @property
    def name(self) -> str:
        """As the outcome of a test names it."""
        return f"{self.tenant}, {self.epoch}, {self.engine or 'palladion'}"


def give_key(installation: Installation, gate: Root, given: Given, out: Path, *, actor: str) -> None:
    """Write the key to the new private file `out`, as the engine reads it, and record that it was given.

    Raises ConflictError on a name that cannot be one, StorageError if `out` exists.
    """
    for text, what in ((given.tenant, "a tenant"), (given.epoch, "an epoch")):
        if not NAME.fullmatch(text):
            raise ConflictError(f"{text!r} cannot be the name of {what}: 1 to 64 letters, digits and . _ @ -")
    if os.path.lexists(out):
        raise StorageError(f"{out} exists already", "name a new file: nothing is overwritten")
    key = text_key(gate.derive(PURPOSE), given.tenant, given.epoch)
    if given.engine is None:
        document: dict[str, object] = {"scheme": SCHEME, "key": key.hex()}
    else:
        document = engine_settings(given.engine, engine_key(key))
    record = Record(
        KEY_GIVEN,
        installation.clock.now(),
        actor,
        given.tenant,
        {"epoch": given.epoch, "engine": given.engine or "palladion"},
    )
    with files.atomic_writer(out, replace=False) as stream:
        stream.write(json.dumps(document).encode() + b"\n")
        # before the file has its name: text marked by a key that is not on record would never be found
        with installation.open_ledger(gate) as ledger:
            ledger.append([record])


def read_text_key(path: Path) -> KeyedChance:
    """The key in a file that `give_key` wrote for our own sampler. Raises FormatError, StorageError."""
    try:
        document = json.loads(files.read_limited(path, size_max=KEY_FILE_BYTES_MAX, what="a key of marked text"))
        key = bytes.fromhex(document["key"])
    except (ValueError, KeyError, TypeError):
        raise FormatError(f"{path} holds no key of marked text", "palladion key text writes one") from None
    if document.get("scheme") != SCHEME or len(key) != 32:
        raise FormatError(f"{path} holds a key of another kind, expected {SCHEME}")
    return KeyedChance(key)


def given_keys(installation: Installation) -> list[Given]:
    """Every key that was ever given, each once."""
    found: dict[Given, None] = {}
    for index, entry in installation.read_ledger().entries():
        # most entries are answers, of which there are millions
        if KEY_GIVEN.encode() not in entry:
            continue
        record = decode_record(entry, what=f"entry {index} of the ledger")
        if record.kind != KEY_GIVEN:
            continue
        engine = record.details["engine"]
        found[Given(record.subject, record.details["epoch"], None if engine == "palladion" else engine)] = None
    return list(found)


def prove_text(
    installation: Installation, gate: Root, texts: Sequence[Tokens], *, actor: str, subject: str
) -> list[tuple[Given, TextFinding]]:
    """Test texts, as numbers of the generating model's tokens, for every key that was given; strongest first, recorded.

    Raises NotFoundError if no key was ever given.
    """
    testable = [given for given in given_keys(installation) if given.engine != "tensorrt-llm"]
    if not testable:
        raise NotFoundError("no key of marked text was ever given", "palladion key text TENANT gives one")
    found = trace_text(texts, {given.name: _chance(gate, given) for given in testable})
    named = {given.name: given for given in testable}
    outcome = [(named[name], finding) for name, finding in found.items()]
    best_given, best = outcome[0]
    details = {
        "looked_for": "text",
        "tested": len(outcome),
        "tokens": best.tokens,
        "best": best_given.name,
        "log10_p": f"{best.log10_p:.1f}",
    }
    with installation.open_ledger(gate) as ledger:
        ledger.append([Record("mark.tested", installation.clock.now(), actor, subject[:200], details)])
    return outcome


def _chance(gate: Root, given: Given) -> Chance:
    key = text_key(gate.derive(PURPOSE), given.tenant, given.epoch)
    return KeyedChance(key) if given.engine is None else engine_chance(given.engine, engine_key(key))
