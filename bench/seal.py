"""What do sealing, verifying and opening cost beside bare AES-256-GCM, plain hashing, and loading a plain file?"""

import hashlib
import mmap
import os
import secrets
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import safetensors.numpy
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bench.report import SEED, Report, Timing, interleaved, main, peak_bytes
from palladion.keys import Ed25519Signer
from palladion.seal import floe
from palladion.seal.header import new_header
from palladion.seal.layout import PARAMETERS
from palladion.seal.reader import OpenedFiles, open_sealed, verify_file
from palladion.seal.recipients import FileIdentity
from palladion.seal.rewrap import rewrap_file
from palladion.seal.sign import publisher_id
from palladion.seal.structure import SealedInfo
from palladion.seal.writer import seal_files

CHUNK = PARAMETERS.segment_bytes
# Beyond glibc's largest mmap threshold (32 MiB): every load gets fresh pages, as in a process that has just begun.
TENSOR_BYTES = 64 * 2**20
GCM_EXTRA = 28  # nonce and tag that a bare chunk carries
MEMORY_ALLOWANCE = 64 * 2**20
SIGNER = Ed25519Signer(bytes(range(32)))
# fixed, so that the process that measures memory has the same
IDENTITY = FileIdentity(bytes(range(32, 64)))


@dataclass(frozen=True)
class _Paths:
    plain: Path
    sealed: Path
    bare: Path  # the same in bare AES-256-GCM, chunk after chunk
    scratch: Path


def measure(report: Report) -> None:
    """Fill the report."""
    repeats = 3 if report.quick else 5
    with tempfile.TemporaryDirectory() as folder:
        paths = _prepare(Path(folder), tensors=2 if report.quick else 8)
        size = paths.plain.stat().st_size
        _kernels(report, 64 if report.quick else 512)
        _writing(report, paths, size, repeats)
        _reading(report, paths, size, repeats)
        _space(report, paths, size)


def _prepare(folder: Path, tensors: int) -> _Paths:
    paths = _Paths(*(folder / name for name in ("plain", "sealed", "bare", "scratch")))
    _save(paths.plain, tensors, TENSOR_BYTES)
    _seal(paths.plain, paths.sealed)
    _encrypt_bare(paths.plain, paths.bare)
    return paths


def _save(path: Path, tensors: int, size: int) -> None:
    generator = np.random.default_rng(SEED)
    arrays = {f"t{number}": generator.random(size // 4, dtype=np.float32) for number in range(tensors)}
    safetensors.numpy.save_file(arrays, path)


def _kernels(report: Report, chunks: int) -> None:
    """Encryption and hashing alone, on one warm chunk: nothing that reads a file can be faster."""
    nonce, data, segment = bytes(12), memoryview(bytes(CHUNK)), memoryview(bytearray(CHUNK))
    cipher = AESGCM(bytes(32))
    plain = data[: PARAMETERS.capacity]
    encrypted = cipher.encrypt(nonce, plain, None)
    into = memoryview(bytearray(PARAMETERS.capacity))

    encryption = floe.Encryption(bytes(32), b"", PARAMETERS)
    encryption.encrypt_into(plain, segment, last=False)
    decryption = floe.Decryption.start(bytes(32), b"", encryption.header, PARAMETERS, what="the benchmark")
    times = interleaved(
        {
            "AES-256-GCM": _times(chunks, lambda: cipher.decrypt_into(nonce, encrypted, None, into)),
            "FLOE": _times(chunks, lambda: decryption.decrypt_into(segment, into, position=0, last=False)),
            "BLAKE3": _times(chunks, lambda: blake3(data).digest()),
            "SHA-256": _times(chunks, lambda: hashlib.sha256(data).digest()),
        },
        repeats=9,
    )
    aes = times["AES-256-GCM"]
    for name in ("AES-256-GCM", "BLAKE3", "SHA-256"):
        _throughput(report, f"{name} alone, 1 MiB in memory", chunks * CHUNK, times[name], aes, "AES-256-GCM")
    share = 100 * aes.median / times["FLOE"].median
    report.at_least("FLOE decryption, rate beside AES-256-GCM alone", share, "%", 80, reference=times["FLOE"].noise)


def _writing(report: Report, paths: _Paths, size: int, repeats: int) -> None:
    other = FileIdentity(bytes(range(64, 96)))
    times = interleaved(
        {
            "seal": lambda: _seal(paths.plain, paths.scratch),
            "bare": lambda: _encrypt_bare(paths.plain, paths.scratch),
            "rewrap": lambda: rewrap_file(
                paths.sealed, [IDENTITY], [SIGNER.public_key], add=[other.recipient], target=paths.scratch
            ),
            "copy": lambda: _copy(paths.plain, paths.scratch),
        },
        repeats=repeats,
    )
    _throughput(report, "encrypt bare: file to file, fsync", size, times["bare"], times["copy"], "copying, fsync")
    _throughput(report, "seal: file to file, fsync", size, times["seal"], times["bare"], "encrypting bare")
    _throughput(report, "rewrap to one more recipient, fsync", size, times["rewrap"], times["seal"], "sealing")


def _reading(report: Report, paths: _Paths, size: int, repeats: int) -> None:
    runs: dict[str, Callable[[], object]] = {
        "verify": lambda: verify_file(paths.sealed, [SIGNER.public_key]),
        "BLAKE3": lambda: _hash(paths.plain, blake3()),
        "SHA-256": lambda: _hash(paths.plain, hashlib.sha256()),
        "open": lambda: _open(paths.sealed),
        "on one thread": lambda: _open(paths.sealed, threads=1),
        "and wipe": lambda: _open(paths.sealed).close(),
        "bare": lambda: _decrypt_bare(paths.bare, size),
        "load": lambda: safetensors.numpy.load_file(paths.plain),
    }
    times = interleaved(runs, repeats=repeats)
    threads = f"{len(os.sched_getaffinity(0))} threads"
    hashing, bare = times["BLAKE3"], times["bare"]
    _throughput(report, "SHA-256 of the plain file", size, times["SHA-256"], hashing, "BLAKE3 of it")
    _throughput(report, f"verify, {threads}", size, times["verify"], hashing, "BLAKE3 of the plain file")
    _throughput(report, "decrypt bare: file to memory", size, bare, times["load"], "loading plain")
    _throughput(report, f"open, {threads}: file to memory", size, times["open"], bare, "decrypting bare")
    _throughput(report, "open, 1 thread", size, times["on one thread"], bare, "decrypting bare")
    _throughput(report, f"open, {threads}, and wipe", size, times["and wipe"], times["open"], "opening alone")
    beside = times["open"].median / times["load"].median
    report.at_most("open, CPU beside loading plain", beside, "x", 1.5, reference=times["load"].noise)
    wall = interleaved({name: runs[name] for name in ("open", "load")}, repeats=repeats, wall=True)
    beside = wall["open"].best / wall["load"].best
    reference = f"best of {repeats}; {threads} beside 1"
    report.at_most("open, wall time beside loading plain", beside, "x", 1.25, reference=reference)


def _space(report: Report, paths: _Paths, size: int) -> None:
    overhead, bare = (path.stat().st_size - size for path in (paths.sealed, paths.bare))
    reference = f"{overhead / size:.4%} of {size / 2**20:.0f} MiB; bare AES-256-GCM {bare / 1024:.1f} KiB"
    report.add("overhead of a sealed file", overhead / 1024, "KiB", reference=reference)
    small, small_sealed = paths.scratch.with_name("small"), paths.scratch.with_name("small sealed")
    _save(small, 1, 4096)
    _seal(small, small_sealed)
    beyond = (peak_bytes(_open, paths.sealed, warm=small_sealed) - size) / 2**20
    plain = (peak_bytes(safetensors.numpy.load_file, paths.plain, warm=small) - size) / 2**20
    reference = f"loading plain: {plain:.0f} MiB, mapped file included"
    report.at_most(
        "open: peak memory beyond the file's size", beyond, "MiB", MEMORY_ALLOWANCE / 2**20, reference=reference
    )


def _throughput(report: Report, name: str, size: int, timing: Timing, reference: Timing, what: str) -> None:
    report.add(name, size / timing.median / 1e9, "GB/s CPU", reference=timing.beside(reference, what))


def _times(count: int, run: Callable[[], object]) -> Callable[[], None]:
    def repeated() -> None:
        for _ in range(count):
            run()

    return repeated


def _seal(plain: Path, target: Path) -> SealedInfo:
    header = new_header(
        kind="safetensors",
        purpose="served",
        publisher=publisher_id(SIGNER.public_key),
        created=datetime(2026, 11, 24, tzinfo=UTC),
        model="bench",
        version=1,
    )
    return seal_files([("model.safetensors", plain)], header, [IDENTITY.recipient], SIGNER, target, replace=True)


def _open(path: Path, threads: int | None = None) -> OpenedFiles:
    return open_sealed(path, [IDENTITY], [SIGNER.public_key], threads=threads)


def _pieces(path: Path, size: int) -> Iterator[memoryview]:
    """The file in pieces of `size` bytes, all in one buffer."""
    buffer = memoryview(bytearray(size))
    with path.open("rb", buffering=0) as stream:
        while count := stream.readinto(buffer):
            yield buffer[:count]


@contextmanager
def _written(path: Path) -> Iterator[Callable[[memoryview], object]]:
    """A function that writes to `path`, which is synced at the end: what any writer must pay."""
    with path.open("wb", buffering=0) as stream:
        yield stream.write
        os.fsync(stream.fileno())


def _copy(source: Path, target: Path) -> None:
    with _written(target) as write:
        for piece in _pieces(source, CHUNK):
            write(piece)


def _encrypt_bare(source: Path, target: Path) -> None:
    """AES-256-GCM over chunks of the same size, and nothing else: no signature, no order, no commitment."""
    cipher, chunk = AESGCM(bytes(32)), memoryview(bytearray(CHUNK + GCM_EXTRA))
    with _written(target) as write:
        for piece in _pieces(source, CHUNK):
            chunk[:12] = secrets.token_bytes(12)
            end = len(piece) + GCM_EXTRA
            cipher.encrypt_into(chunk[:12], piece, None, chunk[12:end])
            write(chunk[:end])


def _decrypt_bare(source: Path, size: int) -> mmap.mmap:
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    cipher, end = AESGCM(bytes(32)), 0
    with memoryview(memory) as view:
        for piece in _pieces(source, CHUNK + GCM_EXTRA):
            begin, end = end, end + len(piece) - GCM_EXTRA
            with view[begin:end] as target:
                cipher.decrypt_into(piece[:12], piece[12:], None, target)
    return memory


def _hash(path: Path, hasher: "hashlib._Hash | blake3") -> bytes:
    for piece in _pieces(path, CHUNK):
        hasher.update(piece)
    return hasher.digest()


if __name__ == "__main__":
    main("seal", __doc__ or "", measure)
