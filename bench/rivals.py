"""How long does a protected model take to load, beside plain safetensors and beside everything else that encrypts?

Each load runs in a process of its own that has imported what it needs and loaded a small file before; from page cache.
What is not installed is left out: torch, safetensors, cryptotensors, tensorizer, pyrage, tink, aws-encryption-sdk.
"""

import base64
import importlib.util
import mmap
import os
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bench.report import SEED, Report, main
from palladion.clock import ManualClock
from palladion.host.host import Host
from palladion.host.load import load
from palladion.keys import Ed25519Signer
from palladion.seal import floe
from palladion.seal.header import new_header
from palladion.seal.layout import PARAMETERS
from palladion.seal.memory import PrivateMemory
from palladion.seal.opening import begun
from palladion.seal.recipients import FileIdentity
from palladion.seal.sign import publisher_id
from palladion.seal.writer import seal_files

TENSORS = 100  # each 1 % of the file
SIGNER, IDENTITY = Ed25519Signer(bytes(range(32))), FileIdentity(bytes(range(32, 64)))
CREATED = datetime(2026, 11, 25, tzinfo=UTC)
MEMORY_ALLOWANCE = 64 * 2**20


@dataclass(frozen=True)
class Run:
    """One load: seconds by the clock, seconds of CPU in user and system, and the memory that it added at its peak."""

    wall: float
    cpu: float
    peak: int


@dataclass(frozen=True)
class Loader:
    """A way to load: the modules it needs, how its file is made from a plain one, and the load itself."""

    name: str
    needs: tuple[str, ...]
    make: Callable[[Path, Path], None]
    load: Callable[[Path], object]
    repeats_max: int = 5  # fewer for what takes a quarter of a minute


def measure(report: Report) -> None:
    """Fill the report."""
    size, repeats = (64 * 2**20, 1) if report.quick else (2 * 2**30, 5)
    loaders = [item for item in LOADERS if all(importlib.util.find_spec(name) for name in item.needs)]
    if report.quick:
        # each takes seconds to be imported
        loaders = [item for item in loaders if set(item.needs) <= {"torch", "safetensors"}]
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        os.environ["PALLADION_BENCH_TINK"] = str(folder / "tink.json")
        _save(folder / "large", size)
        _save(folder / "small", 4 * 2**20)
        for number, loader in enumerate(loaders):
            for name in ("large", "small"):
                loader.make(folder / name, folder / f"{name}.{number}")
        runs: dict[str, list[Run]] = {loader.name: [] for loader in loaders}
        for turn in range(repeats):
            for number, loader in enumerate(loaders):
                if turn < loader.repeats_max:
                    large, small = folder / f"large.{number}", folder / f"small.{number}"
                    runs[loader.name].append(_in_a_process(loader, large, small))
        _tell(report, runs, size)
        _tell_sealing(report, folder, repeats)


def _tell(report: Report, runs: dict[str, list[Run]], size: int) -> None:
    plain = runs[PLAIN]
    for name, taken in runs.items():
        cpu, wall = _median(taken, "cpu"), _median(taken, "wall")
        reference = (
            f"{cpu / _median(plain, 'cpu'):.3g}x the CPU of plain, {wall / _median(plain, 'wall'):.3g}x its wall time; "
            f"peak {max(run.peak for run in taken) / size:.2f}x the file; spread {_spread(taken):.0%}"
        )
        report.add(f"{name}", size / cpu / 1e9, "GB/s CPU", reference=reference)
    for name, cpu_max, wall_max in ((AEAD, 1.3, 1.25), (SEALED, 1.6, 1.35)):
        for what, bar in (("cpu", cpu_max), ("wall", wall_max)):
            best = min(getattr(run, what) for run in runs[name]) / min(getattr(run, what) for run in plain)
            ratio = _median(runs[name], what) / _median(plain, what)
            report.at_most(
                f"{name}: {what} beside {PLAIN}", ratio, "x", bar, reference=f"medians; best of each {best:.3g}x"
            )
    peak = max(run.peak for run in runs[SEALED]) - size
    report.at_most(
        f"{SEALED}: peak memory beyond the file's size",
        peak / 2**20,
        "MiB",
        MEMORY_ALLOWANCE / 2**20,
        reference=f"plain: {(max(run.peak for run in plain) - size) / 2**20:,.0f} MiB",
    )
    share = 100 * _median(runs[LAZY], "cpu") / _median(runs[SEALED], "cpu")
    wall = 100 * _median(runs[LAZY], "wall") / _median(runs[SEALED], "wall")
    report.at_most(f"{LAZY}, CPU beside the whole", share, "%", 3, reference=f"{wall:.2g} % of the wall time")


def _tell_sealing(report: Report, folder: Path, repeats: int) -> None:
    """Sealing beside AES-256-GCM and BLAKE3 over the same bytes, one after the other, writing the same file."""
    ours: list[float] = []
    series: list[float] = []
    for _ in range(repeats):
        for taken, make in ((ours, _seal), (series, _aes_and_blake3)):
            started = time.process_time()
            make(folder / "large", folder / "scratch")
            taken.append(time.process_time() - started)
    rate = 100 * statistics.median(series) / statistics.median(ours)
    report.at_least("sealing, rate beside AES-256-GCM and BLAKE3 in series", rate, "%", 80, reference="file to file")


def _median(runs: list[Run], what: str) -> float:
    return float(statistics.median(getattr(run, what) for run in runs))


def _spread(runs: list[Run]) -> float:
    taken = [run.cpu for run in runs]
    return (max(taken) - min(taken)) / statistics.median(taken)


def _in_a_process(loader: Loader, path: Path, warm: Path) -> Run:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_run, loader.name, path, warm).result()


def _run(name: str, path: Path, warm: Path) -> Run:
    loader = next(item for item in LOADERS if item.name == name)
    loader.load(warm)
    # all the files together do not fit into the page cache beside a load
    with path.open("rb", buffering=0) as stream:
        buffer = bytearray(2**20)
        while stream.readinto(buffer):
            pass
    Path("/proc/self/clear_refs").write_text("5")  # begins the high-water mark anew (proc_pid_clear_refs(5))
    resident, before, started = _status("VmRSS"), _cpu(), time.perf_counter()
    held = loader.load(path)
    wall, cpu, peak = time.perf_counter() - started, _cpu() - before, _status("VmHWM") - resident
    del held
    return Run(wall, cpu, peak)


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def _save(path: Path, size: int) -> None:
    from safetensors.numpy import save_file

    generator = np.random.default_rng(SEED)
    save_file({f"t{n}": generator.random(size // TENSORS // 4, dtype=np.float32) for n in range(TENSORS)}, path)


# --- plain ---


def _link(plain: Path, target: Path) -> None:
    target.hardlink_to(plain)


def _load_plain(path: Path) -> object:
    from safetensors.torch import load_file

    return {name: tensor.clone() for name, tensor in load_file(path).items()}


def _load_mapped(path: Path) -> object:
    from safetensors.torch import load_file

    return load_file(path)


def _load_raw(path: Path) -> object:
    memory = mmap.mmap(-1, path.stat().st_size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with path.open("rb", buffering=0) as stream, memoryview(memory) as view:
        done = 0
        while count := stream.readinto(view[done : done + 2**20]):
            done += count
    return memory


# --- ours ---


def _seal(plain: Path, target: Path) -> None:
    header = new_header(
        kind="safetensors",
        purpose="served",
        publisher=publisher_id(SIGNER.public_key),
        created=CREATED,
        model="bench",
        version=1,
    )
    seal_files([("model.safetensors", plain)], header, [IDENTITY.recipient], SIGNER, target, replace=True)


def _host(path: Path) -> Host:
    folder = path.with_name("host")
    return Host(folder, ManualClock(CREATED), identities=[IDENTITY], publishers=[SIGNER.public_key])


def _load_sealed(path: Path) -> object:
    return load(path, host=_host(path))


def _load_one(path: Path) -> object:
    with load(path, host=_host(path), lazy=True) as tensors:
        return tensors["t50"]


def _load_aead(path: Path) -> object:
    """Decryption alone, on one thread fewer things to do: no digest of the ciphertext is checked."""
    with begun(path, [IDENTITY], [SIGNER.public_key]) as opening:
        layout = opening.structure.layout
        memory = PrivateMemory(layout.plaintext_bytes)
        buffer = memoryview(bytearray(PARAMETERS.segment_bytes))
        for index in range(layout.segments):
            segment = buffer[: layout.segment_bytes(index)]
            opening.source.read_into(segment, layout.segment_offset(index))
            begin = index * PARAMETERS.capacity
            end = begin + len(segment) - floe.OVERHEAD_BYTES
            memory.prepare(end - 1)
            with memory.view[begin:end] as plaintext:
                opening.decrypt(index, segment, plaintext)
    return memory


def _aes_and_blake3(plain: Path, target: Path) -> None:
    cipher, hasher, size = AESGCM(bytes(32)), blake3(), PARAMETERS.segment_bytes
    buffer, encrypted = memoryview(bytearray(size)), memoryview(bytearray(size + 28))
    with plain.open("rb", buffering=0) as stream, target.open("wb", buffering=0) as out:
        while count := stream.readinto(buffer):
            encrypted[:12] = os.urandom(12)
            cipher.encrypt_into(encrypted[:12], buffer[:count], None, encrypted[12 : count + 28])
            hasher.update(encrypted[: count + 28])
            out.write(encrypted[: count + 28])
        os.fsync(out.fileno())


# --- others ---


def _keys() -> dict[str, dict[str, str]]:
    """CryptoTensors' keys, as JSON Web Keys."""
    return {
        "enc_key": {"kty": "oct", "alg": "aes256gcm", "kid": "e", "k": _text(bytes(32))},
        "sign_key": {
            "kty": "okp",
            "alg": "ed25519",
            "kid": "s",
            "d": _text(bytes(range(32))),
            "x": _text(SIGNER.public_key),
        },
    }


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _make_cryptotensors(plain: Path, target: Path) -> None:
    from cryptotensors.torch import save_file
    from safetensors.torch import load_file

    save_file(load_file(plain), target, config=_keys())


def _load_cryptotensors(path: Path) -> object:
    from cryptotensors import register_tmp_key_provider  # type: ignore[attr-defined,unused-ignore]
    from cryptotensors.torch import load_file

    register_tmp_key_provider(keys=list(_keys().values()))
    return load_file(path)


def _make_tensorizer(plain: Path, target: Path) -> None:
    from safetensors.torch import load_file
    from tensorizer import EncryptionParams, TensorSerializer

    serializer = TensorSerializer(str(target), encryption=EncryptionParams(key=bytes(32)))
    serializer.write_state_dict(load_file(plain))
    serializer.close()


def _load_tensorizer(path: Path) -> object:
    from tensorizer import DecryptionParams, TensorDeserializer

    with TensorDeserializer(str(path), device="cpu", encryption=DecryptionParams.from_key(bytes(32))) as tensors:
        return dict(tensors.items())


AGE = "AGE-SECRET-KEY-1RVEKVALXCLMLZEYSFJST6YFQNXELPNQKM5ALQRJN29VKSYXGG2PQMVWRGL"  # made for this file alone


def _make_age(plain: Path, target: Path) -> None:
    import pyrage

    pyrage.encrypt_file(str(plain), str(target), [_age().to_public()])


def _load_age(path: Path) -> object:
    import pyrage

    return pyrage.decrypt(path.read_bytes(), [_age()])


def _age() -> Any:
    import pyrage

    return pyrage.x25519.Identity.from_str(AGE)


def _tink() -> Any:
    import tink
    from tink import secret_key_access, streaming_aead

    streaming_aead.register()
    handle = tink.new_keyset_handle(streaming_aead.streaming_aead_key_templates.AES256_GCM_HKDF_1MB)
    stored = Path(os.environ["PALLADION_BENCH_TINK"])
    if not stored.exists():
        stored.write_text(tink.json_proto_keyset_format.serialize(handle, secret_key_access.TOKEN))
    handle = tink.json_proto_keyset_format.parse(stored.read_text(), secret_key_access.TOKEN)
    return handle.primitive(streaming_aead.StreamingAead)


def _make_tink(plain: Path, target: Path) -> None:
    with plain.open("rb") as stream, _tink().new_encrypting_stream(target.open("wb"), b"") as out:
        shutil.copyfileobj(stream, out, 2**20)


def _load_tink(path: Path) -> object:
    memory = bytearray(path.stat().st_size)
    view, done = memoryview(memory), 0
    with _tink().new_decrypting_stream(path.open("rb"), b"") as stream:
        while count := stream.readinto(view[done : done + 2**20]):
            done += count
    return memory


def _aws() -> tuple[Any, Any]:
    """AWS's client and a master key of our own; no server is asked."""
    import aws_encryption_sdk
    from aws_encryption_sdk.identifiers import EncryptionKeyType, WrappingAlgorithm
    from aws_encryption_sdk.internal.crypto.wrapping_keys import WrappingKey
    from aws_encryption_sdk.key_providers.raw import RawMasterKeyProvider

    class Provider(RawMasterKeyProvider):  # type: ignore[misc]
        provider_id = "bench"

        def _get_raw_key(self, key_id: bytes) -> Any:
            return WrappingKey(
                WrappingAlgorithm.AES_256_GCM_IV12_TAG16_NO_PADDING, bytes(32), EncryptionKeyType.SYMMETRIC
            )

    provider = Provider()
    provider.add_master_key("bench")
    return aws_encryption_sdk.EncryptionSDKClient(), provider


def _make_aws(plain: Path, target: Path) -> None:
    client, provider = _aws()
    with (
        plain.open("rb") as stream,
        target.open("wb") as out,
        client.stream(mode="e", source=stream, key_provider=provider, frame_length=2**20) as encrypting,
    ):
        for piece in encrypting:
            out.write(piece)


def _load_aws(path: Path) -> object:
    client, provider = _aws()
    memory, done = bytearray(path.stat().st_size), 0
    with path.open("rb") as stream, client.stream(mode="d", source=stream, key_provider=provider) as decrypting:
        for piece in decrypting:
            memory[done : done + len(piece)] = piece
            done += len(piece)
    return memory


PLAIN = "plain safetensors, load and copy"
AEAD = "sealed, decrypted and nothing else"
SEALED = "sealed, signature verified"
LAZY = "sealed, one tensor of 1 %"
LOADERS: tuple[Loader, ...] = (
    Loader(PLAIN, ("torch", "safetensors"), _link, _load_plain),
    Loader("plain bytes, read into memory", (), _link, _load_raw),
    Loader("plain safetensors, mapped and not touched", ("torch", "safetensors"), _link, _load_mapped),
    Loader(AEAD, (), _seal, _load_aead),
    Loader(SEALED, (), _seal, _load_sealed),
    Loader(LAZY, (), _seal, _load_one),
    Loader("CryptoTensors", ("cryptotensors", "torch"), _make_cryptotensors, _load_cryptotensors),
    Loader("tensorizer", ("tensorizer",), _make_tensorizer, _load_tensorizer),
    Loader("age (pyrage)", ("pyrage",), _make_age, _load_age, 2),
    Loader("Tink streaming, 1 MB", ("tink",), _make_tink, _load_tink, 3),
    Loader("AWS Encryption SDK, 1 MiB frames", ("aws_encryption_sdk",), _make_aws, _load_aws, 2),
)

if __name__ == "__main__":
    main("rivals", __doc__ or "", measure)
