"""A witness of other people's logs: cosigns a checkpoint that continues the one before, and never two that do not fit.

Speaks c2sp.org/tlog-witness, as bytes in and an answer out. Of each log it keeps the last checkpoint that it cosigned,
on the disk before the answer. If that is lost the witness has to get another key: it would cosign a second history.
"""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from palladion import files
from palladion.clock import Clock
from palladion.errors import ConflictError, FormatError, PalladionError, TamperError
from palladion.keys import Ed25519Signer
from palladion.ledger import merkle
from palladion.ledger.checkpoint import (
    NOTE_BYTES_MAX,
    Checkpoint,
    VerifierKey,
    decode_base64,
    parse_note,
    parse_text,
    parse_verifier_key,
    valid_origin,
    verify_checkpoint,
)
from palladion.ledger.cosignature import WitnessKey, cosign
from palladion.ledger.merkle import HASH_BYTES, SIZE_MAX

PROOF_LINES_MAX = 63
REQUEST_BYTES_MAX = NOTE_BYTES_MAX + 64 * (PROOF_LINES_MAX + 1)
LOGS_MAX = 10_000
SIZE_TYPE = "text/x.tlog.size"
_TEXT = "text/plain; charset=utf-8"
_SECRET_FILE, _NAME_FILE, _LOGS_FILE, _STATES, _LOCK = "key", "name", "logs", "states", "lock"


@dataclass(frozen=True)
class Answer:
    """What a witness says: an HTTP status, the type of the body, and the body."""

    status: int
    content_type: str
    body: bytes


class Witness:
    """A witness in a folder of its own. Holds the folder's lock while it is open; not for several threads at once."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        """Open what `create` made. Raises StorageError, FormatError, BusyError if another process has it."""
        self._folder = folder
        self._clock = clock
        secret = files.read_limited(folder / _SECRET_FILE, size_max=64, what="the witness's key")
        name = files.read_limited(folder / _NAME_FILE, size_max=1024, what="the witness's name").decode().strip()
        seed = decode_base64(secret.decode("ascii", "replace").strip(), what="the witness's key")
        if len(seed) != 32:
            raise FormatError("the witness's key has another length than 32 bytes")
        self._signer = Ed25519Signer(seed)
        self.key = WitnessKey(name, self._signer.public_key)
        self.logs = {key.name: key for key in read_logs(folder)}
        self._held = files.exclusive_lock(folder / _LOCK, what=f"the witness in {folder}")
        self._held.__enter__()

    @staticmethod
    def create(folder: Path, name: str, secret: bytes) -> WitnessKey:
        """Make a witness of this name, with a fresh secret of 32 bytes. Raises ConflictError if there is one."""
        if not valid_origin(name):
            raise PalladionError(f"{name!r} cannot be a witness's name: one word without + is expected")
        files.make_private_directory(folder)
        if (folder / _SECRET_FILE).exists():
            raise ConflictError(f"there is a witness in {folder} already")
        files.make_private_directory(folder / _STATES)
        files.write_atomically(folder / _NAME_FILE, name.encode() + b"\n")
        files.write_atomically(folder / _LOGS_FILE, b"")
        files.write_atomically(folder / _SECRET_FILE, base64.b64encode(secret) + b"\n")
        return WitnessKey(name, Ed25519Signer(secret).public_key)

    def close(self) -> None:
        """Give the folder back."""
        self._held.__exit__(None, None, None)

    def cosigned(self, origin: str) -> Checkpoint | None:
        """The last checkpoint of a log that was cosigned. Raises TamperError where what was kept does not hold."""
        path = self._state_path(origin)
        if not path.exists():
            return None
        note = files.read_limited(path, size_max=NOTE_BYTES_MAX, what="the witness's state")
        return verify_checkpoint(note, self.logs[origin])

    def add_checkpoint(self, request: bytes) -> Answer:
        """Answer one request: cosign, or say why not. Raises StorageError where the state cannot be kept."""
        # 1. what is asked, and by whom
        try:
            old_size, proof, note = _parse_request(request)
            text, _ = parse_note(note)
            stated = parse_text(text)
        except FormatError as error:
            return _refused(400, error.message)
        key = self.logs.get(stated.origin)
        if key is None:
            return _refused(404, "this witness does not know that log")
        try:
            checkpoint = verify_checkpoint(note, key)
        except (FormatError, TamperError) as error:
            return _refused(403, error.message)
        if old_size > checkpoint.size:
            return _refused(400, "the old size is larger than the checkpoint's")
        # 2. whether it continues what was cosigned last
        last = self.cosigned(key.name)
        known = last.size if last is not None else 0
        if old_size != known:
            return Answer(409, SIZE_TYPE, b"%d\n" % known)
        if last is not None and checkpoint.size == known and checkpoint.root != last.root:
            # two roots of one size: the log was rewritten, and this request is the evidence
            self._keep_evidence(key.name, note)
            return Answer(409, SIZE_TYPE, b"%d\n" % known)
        try:
            merkle.verify_consistency(
                known, checkpoint.size, last.root if last is not None else merkle.EMPTY_ROOT, checkpoint.root, proof
            )
            _check_empty(checkpoint)
        except TamperError as error:
            return _refused(422, error.message)
        # 3. on the disk before anybody learns of it
        files.write_atomically(self._state_path(key.name), note)
        return Answer(200, _TEXT, cosign(text, self.key.name, self._signer, self._clock.now()))

    def _keep_evidence(self, origin: str, note: bytes) -> None:
        """Keep a checkpoint that a log signed beside another one of the same size: proof that it told two histories."""
        files.write_atomically(self._state_path(origin).with_suffix(".contradicts"), note)

    def _state_path(self, origin: str) -> Path:
        return self._folder / _STATES / sha256(origin.encode()).hexdigest()


def read_logs(folder: Path) -> list[VerifierKey]:
    """The logs that a witness in `folder` knows. Raises StorageError, FormatError."""
    data = files.read_limited(folder / _LOGS_FILE, size_max=LOGS_MAX * 400, what="the witness's list of logs")
    return [parse_verifier_key(line) for line in data.decode().splitlines() if line.strip()]


def add_log(folder: Path, key: VerifierKey) -> None:
    """Let a witness know a log from its next start on. Raises ConflictError on another key for a known origin."""
    known = read_logs(folder)
    if any(other.name == key.name and other != key for other in known):
        raise ConflictError(f"this witness knows {key.name} by another key", "a log that lost its key is a new log")
    if key in known:
        return
    if len(known) >= LOGS_MAX:
        raise PalladionError(f"a witness knows at most {LOGS_MAX} logs")
    files.write_atomically(folder / _LOGS_FILE, "".join(f"{item}\n" for item in [*known, key]).encode())


def encode_request(old_size: int, proof: Sequence[bytes], note: bytes) -> bytes:
    """The body of a request to cosign `note`, which continues the state of `old_size` entries by `proof`."""
    lines = [f"old {old_size}", *(base64.b64encode(item).decode() for item in proof)]
    return ("\n".join(lines) + "\n\n").encode() + note


def _parse_request(data: bytes) -> tuple[int, list[bytes], bytes]:
    if len(data) > REQUEST_BYTES_MAX:
        raise FormatError("the request is too long")
    head, separator, note = data.partition(b"\n\n")
    try:
        lines = head.decode("ascii").split("\n")
    except UnicodeDecodeError:
        raise FormatError("the request is not text") from None
    number = re.fullmatch(r"old (0|[1-9][0-9]{0,14})", lines[0])
    if not separator or number is None or int(number.group(1)) > SIZE_MAX:
        raise FormatError("the request does not begin with old and a size")
    if len(lines) - 1 > PROOF_LINES_MAX:
        raise FormatError(f"the proof has more than {PROOF_LINES_MAX} lines")
    proof = [decode_base64(line, what="a hash of the proof") for line in lines[1:]]
    if any(len(item) != HASH_BYTES for item in proof):
        raise FormatError(f"a hash of the proof does not have {HASH_BYTES} bytes")
    return int(number.group(1)), proof, note


def _check_empty(checkpoint: Checkpoint) -> None:
    if checkpoint.size == 0 and checkpoint.root != merkle.EMPTY_ROOT:
        raise TamperError("the checkpoint of no entries has another root than that of nothing")


def _refused(status: int, sentence: str) -> Answer:
    return Answer(status, _TEXT, f"{sentence}\n".encode())
