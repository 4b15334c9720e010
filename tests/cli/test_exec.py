"""`palladion exec`, as a person types it: order of checks, real engines, and that no plaintext reaches a disk."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save

from palladion.cli.main import main
from palladion.host import expose, linux
from palladion.host.expose import FOLDER_PREFIX
from palladion.seal import opening
from palladion.seal.recipients import write_identity
from palladion.seal.sign import publisher_text
from tests.models import onnx_bytes, safetensors_bytes
from tests.seal.factories import CAPACITY, CREATED, Party

pytestmark = pytest.mark.slow  # starts engines by the dozen

ROOT = Path(__file__).resolve().parents[2]
WAYS = ["mount", "links"]
PATIENCE_SECONDS = 20.0


@dataclass
class Setting:
    """A host that trusts one publisher, in a folder of its own."""

    folder: Path
    party: Party = field(default_factory=Party)

    def __post_init__(self) -> None:
        host = self.folder / "host"
        host.mkdir(mode=0o700)
        write_identity(host / "host.identity", self.party.identity, created=CREATED)
        (host / "publishers").write_text(publisher_text(self.party.signer.public_key))

    def seal(self, *files: tuple[str, bytes], name: str = "fraud.sealed", **fields: Any) -> Path:
        path = self.folder / name
        path.unlink(missing_ok=True)
        return self.party.seal(path, files, **fields)

    def arguments(self, sealed: Path, *command: str, options: Sequence[str] = ()) -> list[str]:
        return ["exec", str(sealed), *options, "--", *command]

    def run(self, sealed: Path, *command: str, options: Sequence[str] = ()) -> int:
        """In this process."""
        return main(self.arguments(sealed, *command, options=options))

    def python(self, sealed: Path, script: str, *arguments: str, options: Sequence[str] = ()) -> int:
        """A Python engine, with this one's packages; its first argument is the model's path unless others are given."""
        engine = self.folder / "engine.py"
        engine.write_text(textwrap.dedent(script))
        return self.run(sealed, sys.executable, str(engine), *(arguments or ("{}",)), options=options)


@pytest.fixture(autouse=True)
def memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The user's own folder in memory, so that others who run this meanwhile are not seen."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        yield Path(folder)


@pytest.fixture
def setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Setting:
    monkeypatch.setenv("PALLADION_HOST", str(tmp_path / "host"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return Setting(tmp_path)


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> list[str]:
    """The options that choose each of the two ways to the memory."""
    if request.param == "mount" and not _mounts_are_to_be_had():
        pytest.skip("this system lets this user have no mounts of his own")
    return ["--paths", request.param]


def _mounts_are_to_be_had() -> bool:
    child = os.fork()
    if child == 0:
        try:
            linux.enter_private_mounts()
            os._exit(0)
        except OSError:
            os._exit(1)
    return os.waitpid(child, 0)[1] == 0


def _left_behind() -> list[Path]:
    return list(Path(os.environ["XDG_RUNTIME_DIR"]).glob(f"{FOLDER_PREFIX}*"))


def _until_gone(pid: int) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < end, f"process {pid} is still there"
        time.sleep(0.01)


# What the command does.


def test_an_engine_gets_the_file_under_its_own_name(
    setting: Setting, way: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    sealed = setting.seal(("model.gguf", b"GGUF weights"))
    assert setting.run(sealed, "sh", "-c", 'cat "$1"; echo "$1" >&2; exit 7', "sh", "{}", options=way) == 7
    out, err = capfd.readouterr()
    assert out == "GGUF weights"
    announced, path = err.splitlines()
    assert re.fullmatch(rf"/\S+/{FOLDER_PREFIX}\w+/model\.gguf", path)
    how = "in a mount of the engine's own" if "mount" in way else "through links to memory"
    assert announced == f"palladion: fraud version 3, 4.0 KiB in memory, {how}: {path}"
    assert _left_behind() == []


def test_several_files_are_a_folder_and_each_has_a_path(
    setting: Setting, way: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    sealed = setting.seal(("config.json", b"{}"), ("a/w-1.bin", b"one"), ("a/w-2.bin", b"two"))
    script = 'cd "$1" && find . ! -type d | sort; cat "$2"; echo; echo "$3" "$4"'
    assert (
        setting.run(sealed, "sh", "-c", script, "sh", "{}", "{file:a/w-2.bin}", "--x={folder}/a", "{{}}", options=way)
        == 0
    )
    out = capfd.readouterr().out.splitlines()
    assert out[:4] == ["./a/w-1.bin", "./a/w-2.bin", "./config.json", "two"]
    assert re.fullmatch(r"--x=/\S+/a \{\}", out[4])


def test_the_folder_of_a_single_file_has_a_path_too(setting: Setting, capfd: pytest.CaptureFixture[str]) -> None:
    sealed = setting.seal(("models/1/model.onnx", b"x"))
    assert setting.run(sealed, "ls", "{folder}/models/1") == 0
    assert capfd.readouterr().out == "model.onnx\n"


def test_what_was_opened_is_remembered_and_nothing_older_run(
    setting: Setting, capfd: pytest.CaptureFixture[str]
) -> None:
    older, newer = (setting.seal(("m", b"x"), name=f"{number}.sealed", version=number) for number in (4, 5))
    assert setting.run(older, "true", "{}") == 0
    assert setting.run(newer, "true", "{}") == 0
    assert setting.run(older, "echo", "ran", "{}") == 2
    out, err = capfd.readouterr()
    assert "version 4 is older than version 5" in err
    assert out == ""
    assert setting.run(older, "true", "{}", options=["--allow-older"]) == 0


def test_identity_and_publisher_may_be_named(
    setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    sealed = setting.seal(("m", b"x"))
    other = Party()
    write_identity(tmp_path / "other.identity", other.identity, created=CREATED)
    monkeypatch.setenv("PALLADION_HOST", str(tmp_path / "empty"))
    publisher = ["--publisher", publisher_text(setting.party.signer.public_key)]
    mine = ["--identity", str(tmp_path / "host" / "host.identity")]
    others = ["--identity", str(tmp_path / "other.identity")]
    assert setting.run(sealed, "true", "{}", options=[*publisher, *others, *mine]) == 0
    assert setting.run(sealed, "true", "{}", options=[*publisher, *others]) == 2
    assert "none of the identities given opens it" in capfd.readouterr().err
    assert setting.run(sealed, "true", "{}", options=mine) == 2
    assert "trusts no publisher" in capfd.readouterr().err
    foreign = ["--publisher", publisher_text(other.signer.public_key)]
    assert setting.run(sealed, "true", "{}", options=[*foreign, *mine]) == 1
    assert setting.run(sealed, "true", "{}", options=publisher) == 2
    assert "holds no identity" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (["no-such-engine", "{}"], "there is no program no-such-engine that can be run"),
        (["./fraud.sealed", "{}"], "there is no program ./fraud.sealed that can be run"),
        (["cat"], "the command has no {}: where does the model's path go?"),
        (["cat", "{{}}"], "the command has no {}"),
        (["cat", "{file:}"], "the command has no {}"),
    ],
)
def test_a_command_that_cannot_work_is_refused_before_the_file_is_read(
    setting: Setting,
    command: list[str],
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    sealed = setting.seal(("m", b"x"))

    def read(*_: object) -> None:
        raise AssertionError("the sealed file was read")

    monkeypatch.setattr(opening, "read_structure", read)
    monkeypatch.chdir(setting.folder)
    assert setting.run(sealed, *command) == 2
    assert sentence in capfd.readouterr().err


def test_a_file_that_is_not_in_it_is_refused_before_anything_is_exposed(
    setting: Setting, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    sealed = setting.seal(("m", b"x"))
    monkeypatch.setattr(expose, "read_into", lambda *_, **__: pytest.fail("it was decrypted"))
    assert setting.run(sealed, "cat", "{file:n}") == 2
    assert "there is no file 'n' in it: it holds m" in capfd.readouterr().err


def test_the_checks_come_in_their_order(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    from palladion.host.host import Host
    from palladion.host.supervise import Keeper
    from palladion.seal.structure import Structure

    order: list[str] = []

    def note(owner: object, name: str) -> None:
        original = getattr(owner, name)

        def noted(*arguments: object, **options: object) -> object:
            order.append(name)
            return original(*arguments, **options)

        monkeypatch.setattr(owner, name, noted)

    for owner, name in [
        (opening, "read_structure"),
        (Structure, "verify_publisher"),
        (Host, "accept"),
        (opening, "unwrap_file_key"),
        (expose, "read_into"),
        (Host, "remember"),
        (Keeper, "run"),
    ]:
        note(owner, name)
    assert setting.run(setting.seal(("m", b"x")), "true", "{}") == 0
    assert order == [
        "read_structure", "verify_publisher", "accept", "unwrap_file_key", "read_into", "remember", "run",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["keyring", "backup"])
def test_keys_and_backups_are_no_models(setting: Setting, kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert setting.run(setting.seal(("m", b"x"), kind=kind), "cat", "{}") == 1
    out, err = capfd.readouterr()
    assert f"holds a {kind}, not a model" in err
    assert out == ""


def test_a_plain_file_is_not_run_in_place_of_a_sealed_one(setting: Setting, capfd: pytest.CaptureFixture[str]) -> None:
    plain = setting.folder / "plain.sealed"
    plain.write_bytes(b"GGUF other weights")
    assert setting.run(plain, "cat", "{}") == 1
    out, err = capfd.readouterr()
    assert "is not a sealed file" in err
    assert out == ""


@pytest.mark.parametrize("damage", ["altered", "truncated", "appended"])
def test_a_damaged_file_never_starts_the_engine_and_leaves_nothing(
    setting: Setting, way: list[str], damage: str, capfd: pytest.CaptureFixture[str]
) -> None:
    sealed = setting.seal(("m", os.urandom(2 * CAPACITY)))
    data = bytearray(sealed.read_bytes())
    if damage == "altered":
        data[-(CAPACITY // 2)] ^= 1
    sealed.write_bytes({"altered": data, "truncated": data[:-1], "appended": data + b"\0"}[damage])
    started = setting.folder / "started"
    assert setting.run(sealed, "touch", str(started), "{}", options=way) == 1
    assert not started.exists()
    assert not any("memfd" in str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink())
    assert _left_behind() == []
    assert capfd.readouterr().err.startswith("palladion: error: ")


def test_a_model_that_needs_a_licence_is_not_run_without(setting: Setting, capfd: pytest.CaptureFixture[str]) -> None:
    sealed = setting.seal(("m", b"x"), license_required=True)
    assert setting.run(sealed, "echo", "ran", "{}") != 0
    out, err = capfd.readouterr()
    assert "licence" in err
    assert out == ""


def test_a_host_that_cannot_remember_does_not_run(setting: Setting, capfd: pytest.CaptureFixture[str]) -> None:
    sealed = setting.seal(("m", b"x"))
    (setting.folder / "host" / "seen.json").mkdir()
    assert setting.run(sealed, "echo", "ran", "{}") != 0
    assert capfd.readouterr().out == ""


@pytest.mark.slow
def test_a_full_standard_error_does_not_keep_the_engine_from_running(setting: Setting) -> None:
    sealed = setting.seal(("m", b"x"))
    command = [sys.executable, "-m", "palladion", *setting.arguments(sealed, "sh", "-c", "exit 5", "{}")]
    with Path("/dev/full").open("w") as full:
        assert subprocess.run(command, stderr=full, check=False, cwd=ROOT).returncode == 5


def test_a_model_that_can_be_swapped_is_warned_of(
    setting: Setting, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(expose, "_has_swap", lambda: True)
    monkeypatch.setattr(linux, "lock_memory", lambda _: (_ for _ in ()).throw(OSError(12, "no")))
    assert setting.run(setting.seal(("m", b"x")), "true", "{}", options=["--paths", "links"]) == 0
    assert "the model can be swapped to a disk" in capfd.readouterr().err


# What it promises.


def test_the_engine_cannot_write_to_the_model(
    setting: Setting, way: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    sealed = setting.seal(("model.bin", b"weights"))
    script = """
        import errno, mmap, os, sys
        path = sys.argv[1]
        refused = 0
        for attempt in (
            lambda: open(path, "r+b", buffering=0).write(b"x"),
            lambda: open(path, "ab", buffering=0).write(b"x"),
            lambda: os.truncate(path, 0),
            lambda: mmap.mmap(os.open(path, os.O_RDWR), 0),
            lambda: os.posix_fallocate(os.open(path, os.O_RDWR), 0, 1 << 20),
        ):
            try:
                attempt()
            except OSError as error:
                refused += error.errno in (errno.EROFS, errno.EPERM, errno.EACCES)
        print(refused, open(path, "rb").read())
    """
    assert setting.python(sealed, script, options=way) == 0
    assert capfd.readouterr().out == "5 b'weights'\n"


@pytest.mark.slow
def test_no_plaintext_is_written_to_a_disk(
    setting: Setting, way: list[str], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = os.urandom(16).hex().encode()
    size = 8 * CAPACITY
    sealed = setting.seal(("model.bin", (marker * (size // len(marker)))), ("name-" + marker.decode(), b"x"))
    monkeypatch.chdir(setting.folder)
    script = """
        import os, sys, tempfile
        from pathlib import Path
        marker, folder, size = sys.argv[2].encode(), Path(sys.argv[1]), 0
        assert marker in (folder / "model.bin").read_bytes()
        found = []
        tops = ["/dev/shm", "/run", "/var/tmp", os.getcwd(), tempfile.gettempdir()]
        for path, folders, names in (item for top in tops for item in os.walk(top)):
            if Path(path) == folder:
                folders.clear()
                continue
            if path == "/tmp":
                folders.clear()  # of others, in any number
            for file in (Path(path, name) for name in names):
                if marker.decode() in str(file):
                    found.append(str(file))
                if file.is_file() and os.access(file, os.R_OK) and file.stat().st_mtime > float(sys.argv[3]):
                    found += [str(file)] * (marker in file.read_bytes())
        print(found)
    """
    started = str(setting.folder.stat().st_mtime - 1)
    before = _written()
    assert setting.python(sealed, script, "{}", marker.decode(), started, options=way) == 0
    written = _written() - before
    assert json.loads(capfd.readouterr().out.replace("'", '"')) == []
    # all that this process handed to the kernel to write: what the host remembers, our sentences
    assert written < 64 * 1024
    folders = [setting.folder, Path.cwd()]
    assert not any(marker in path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file())


def _written() -> int:
    return int(re.search(r"^wchar: (\d+)$", Path("/proc/self/io").read_text(), re.MULTILINE)[1])  # type: ignore[index]


def test_the_maps_of_supervisor_and_engine_show_the_model_in_memory_alone(
    setting: Setting, way: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    sealed = setting.seal(("model.bin", b"w" * CAPACITY))
    script = """
        import mmap, os, sys
        from pathlib import Path
        with open(sys.argv[1], "rb") as stream:
            mapping = mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ)
        keeper = os.getppid()
        supervisor = int(Path(f"/proc/{keeper}/stat").read_text().rpartition(")")[2].split()[1])
        for pid in (os.getpid(), supervisor):
            lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
            print([line.split(maxsplit=5) for line in lines if "model.bin" in line or "sealed" in line])
        print(Path(f"/proc/{keeper}/maps").read_text().count("model.bin"))
    """
    assert setting.python(sealed, script, options=way) == 0
    engine, supervisor, keeper = map(eval, capfd.readouterr().out.splitlines())
    assert len(engine) == len(supervisor) == 1
    assert engine[0][1] == "r--s"
    assert supervisor[0][1] == "rw-s"
    for *_, device, inode, path in (*engine, *supervisor):
        assert int(inode)
        if "links" in way:
            assert path == "/memfd:model.bin (deleted)"
        else:
            assert path.endswith("/model.bin")
            # a tmpfs has no device: its number is anonymous, major 0
            assert device.startswith("00:")
    assert keeper == 0


def test_neither_supervisor_nor_engine_is_dumped(
    setting: Setting, way: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from palladion.host.supervise import Keeper

    dumpable: list[bool] = []
    run = Keeper.run

    def note_and_run(keeper: Keeper, command: Sequence[str]) -> int:
        dumpable.append(linux.is_dumpable())
        return run(keeper, command)

    monkeypatch.setattr(Keeper, "run", note_and_run)
    script = f"cat /proc/{os.getpid()}/coredump_filter /proc/self/coredump_filter; grep core /proc/self/limits"
    assert setting.run(setting.seal(("m", b"x")), "sh", "-c", script, "{}", options=way) == 0
    *filters, limits = capfd.readouterr().out.splitlines()
    assert filters == ["00000000", "00000000"]
    assert limits.split()[-3:] == ["1", "1", "bytes"]
    # only links lead through this process
    assert dumpable == ["links" in way]


@pytest.mark.slow
def test_a_killed_supervisor_takes_engine_and_memory_with_it(setting: Setting, way: list[str]) -> None:
    sealed = setting.seal(("model.bin", b"w" * CAPACITY))
    engine = setting.folder / "engine.sh"
    engine.write_text('setsid sh -c "exec 3< $1; echo worker \\$\\$; sleep 600; true" & echo engine $$ $1; wait\n')
    command = [sys.executable, "-m", "palladion", *setting.arguments(sealed, "sh", str(engine), "{}", options=way)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as supervisor:
        assert supervisor.stdout is not None
        lines = dict(supervisor.stdout.readline().split(maxsplit=1) for _ in range(2))
        pid, path = lines["engine"].split()
        [keeper] = linux.children(supervisor.pid)
        supervisor.kill()
        for number in (int(pid), int(lines["worker"]), keeper):
            _until_gone(number)
    assert not Path(path).parent.exists()


@pytest.mark.slow
def test_a_terminated_supervisor_ends_its_engine(setting: Setting) -> None:
    sealed = setting.seal(("model.bin", b"w"))
    script = "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.01; done"
    command = [sys.executable, "-m", "palladion", *setting.arguments(sealed, "sh", "-c", script, "{}")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as supervisor:
        assert supervisor.stdout is not None
        assert supervisor.stdout.readline() == "up\n"
        supervisor.send_signal(signal.SIGTERM)
        assert supervisor.stdout.read() == "bye\n"
        assert supervisor.wait() == 3
    assert _left_behind() == []


def test_the_environment_is_handed_on_as_it_is(setting: Setting, capfd: pytest.CaptureFixture[str]) -> None:
    assert setting.run(setting.seal(("m", b"x")), "sh", "-c", "env", "{}") == 0
    found = dict(line.split("=", 1) for line in capfd.readouterr().out.splitlines() if "=" in line)
    changed = {name for name in found if found[name] != os.environ.get(name)}
    assert changed <= {"_", "PWD", "OLDPWD", "SHLVL", "LINES", "COLUMNS"}  # a shell's own, and readline's


# Users, by what they may do and how to become one; the last column is what `--paths mount` says to him.
USERS = {
    "ordinary": (["unshare", "--user", "--map-user=1000", "--map-group=1000"], "mount", ""),
    "ordinary, without user namespaces": (
        [
            *("unshare", "--user", "--map-root-user", "sh", "-c"),
            *('echo 0 > /proc/sys/user/max_user_namespaces; exec "$@"', "sh"),
            *("setpriv", "--bounding-set=-all", "--inh-caps=-all"),
        ],
        "links",
        "no space left on device",
    ),
    "root of a container": (["setpriv", "--bounding-set=-sys_admin"], "links", "operation not permitted"),
}


@pytest.mark.slow
@pytest.mark.parametrize("user", USERS)
def test_a_user_gets_a_mount_where_he_may_and_links_where_not(setting: Setting, user: str) -> None:
    become, expected, refusal = USERS[user]
    if subprocess.run([*become, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this system does not let us become such a user")

    def run(*command: str, options: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        arguments = setting.arguments(sealed, *command, options=options)
        return subprocess.run(
            [*become, sys.executable, "-m", "palladion", *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
        )

    sealed = setting.seal(("model.bin", b"weights"))
    done = run("sh", "-c", 'cat "$1"; setsid cat "$1"; grep CapEff /proc/self/status; echo x > "$1"', "sh", "{}")
    assert done.stdout.startswith("weightsweights")
    if "ordinary" in user:
        assert done.stdout.endswith("CapEff:\t0000000000000000\n")
    assert ("mount of the engine's own" if expected == "mount" else "through links to memory") in done.stderr
    assert done.returncode == 2
    assert re.search("Read-only file system|Operation not permitted|Permission denied", done.stderr)
    asked = run("true", "{}", options=["--paths", "mount"])
    assert asked.returncode == (2 if refusal else 0)
    assert refusal in asked.stderr


# Engines.


def test_a_shell_script_that_execs_another_program(
    setting: Setting, way: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    script = setting.folder / "serve.sh"
    script.write_text('#!/bin/sh\nexec sh -c \'exec env -i cat "$1"\' sh "$1"\n')
    script.chmod(0o700)
    assert setting.run(setting.seal(("m", b"weights")), str(script), "{}", options=way) == 0
    assert capfd.readouterr().out == "weights"


@pytest.mark.slow
def test_workers_that_are_spawned_and_close_what_they_inherit(
    setting: Setting, way: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    script = """
        import multiprocessing, subprocess, sys

        def read(path):
            with open(path, "rb") as stream:
                return stream.read()

        if __name__ == "__main__":
            path = sys.argv[1]
            for method in ("spawn", "forkserver"):
                with multiprocessing.get_context(method).Pool(1) as pool:
                    print(pool.map(read, [path]))
            print(subprocess.run(["cat", path], close_fds=True, capture_output=True, start_new_session=True).stdout)
    """
    assert setting.python(setting.seal(("m", b"weights")), script, options=way) == 0
    assert capfd.readouterr().out == "[b'weights']\n[b'weights']\nb'weights'\n"


@pytest.mark.slow
def test_native_code_is_loaded_through_links_alone(
    setting: Setting, way: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    import blake3

    [library] = Path(blake3.__file__).parent.glob("*.so")
    script = """
        import ctypes, sys
        try:
            print(ctypes.PyDLL(sys.argv[1]).PyInit_blake3 is not None, "loaded")
        except OSError as error:
            print("failed to map segment" in str(error), "refused")
    """
    assert setting.python(setting.seal(("code.so", library.read_bytes())), script, options=way) == 0
    assert capfd.readouterr().out == ("True refused\n" if "mount" in way else "True loaded\n")


def test_onnxruntime(setting: Setting, way: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    script = """
        import numpy, onnxruntime, sys
        session = onnxruntime.InferenceSession(sys.argv[1])
        [answer] = session.run(None, {"x": numpy.ones((1, 4), numpy.float32)})
        print(round(float(answer.sum()), 3))
    """
    assert setting.python(setting.seal(("model.onnx", onnx_bytes(1)), kind="onnx"), script, options=way) == 0
    assert capfd.readouterr().out == "1.0\n"


@pytest.mark.slow
def test_onnxruntime_with_external_data_takes_real_files_and_refuses_links(
    setting: Setting, way: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    sealed = setting.seal(*_with_external_data(setting.folder), kind="onnx")
    script = """
        import onnxruntime, sys
        print(onnxruntime.InferenceSession(sys.argv[1]).get_inputs()[0].shape[1])
    """
    code = setting.python(sealed, script, "{file:m.onnx}", options=way)
    out, err = capfd.readouterr()
    if "mount" in way:
        assert (code, out) == (0, "64\n")
    else:
        # it resolves the path and wants the data below the folder it finds: docs/exec.md says so of this way
        assert code != 0
        assert "External data path validation failed" in err


def _with_external_data(folder: Path) -> list[tuple[str, bytes]]:
    weights = numpy_helper.from_array(np.ones((64, 64), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 64])],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    made = folder / "made"
    made.mkdir()
    onnx.save_model(model, str(made / "m.onnx"), save_as_external_data=True, location="m.data", size_threshold=0)
    return [(name, (made / name).read_bytes()) for name in ("m.onnx", "m.data")]


@pytest.mark.slow
def test_safetensors(setting: Setting, way: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    script = """
        import sys
        from safetensors import safe_open
        from safetensors.numpy import load_file
        print(sorted(load_file(sys.argv[1])))
        with safe_open(sys.argv[1], "numpy") as lazy:
            print(lazy.get_slice("a")[3:5].shape)
    """
    sealed = setting.seal(("model.safetensors", safetensors_bytes()), kind="safetensors")
    assert setting.python(sealed, script, options=way) == 0
    assert capfd.readouterr().out == "['a', 'b']\n(2, 8)\n"


@pytest.mark.slow
def test_numpy_maps_an_array(setting: Setting, way: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    import io

    buffer = io.BytesIO()
    np.save(buffer, np.arange(10))
    script = "import numpy, sys; print(numpy.load(sys.argv[1], mmap_mode='r').sum())"
    assert setting.python(setting.seal(("a.npy", buffer.getvalue())), script, options=way) == 0
    assert capfd.readouterr().out == "45\n"


@pytest.mark.torch
@pytest.mark.slow
def test_transformers_from_a_folder_with_shards(
    setting: Setting, way: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", **_TINY_LLAMA}
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**_TINY_LLAMA))
    tensors = {name: tensor.numpy() for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
    names = sorted(tensors)
    shards = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    index = {"metadata": {}, "weight_map": {name: shard for shard, held in shards.items() for name in held}}
    sealed = setting.seal(
        ("config.json", json.dumps(config | {"tie_word_embeddings": True}).encode()),
        ("model.safetensors.index.json", json.dumps(index).encode()),
        *((shard, save({name: tensors[name] for name in held}, {"format": "pt"})) for shard, held in shards.items()),
    )
    script = """
        import sys, torch
        from transformers import AutoModelForCausalLM
        model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
        print(tuple(model(torch.tensor([[1, 2, 3]])).logits.shape), model.model.embed_tokens.weight.sum().item())
    """
    assert setting.python(sealed, script, options=way) == 0
    expected = model.model.embed_tokens.weight.sum().item()
    assert capfd.readouterr().out == f"(1, 3, 64) {expected}\n"


_TINY_LLAMA = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "tie_word_embeddings": True,
}


@pytest.mark.slow
def test_the_reader_of_gguf(setting: Setting, way: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("gguf", reason="gguf is not installed")
    script = """
        import sys
        from gguf import GGUFReader
        reader = GGUFReader(sys.argv[1])
        print(len(reader.tensors), reader.fields["general.architecture"].contents())
    """
    sealed = setting.seal(("model.gguf", _tiny_gguf(setting.folder / "made.gguf")), kind="gguf")
    assert setting.python(sealed, script, options=way) == 0
    assert capfd.readouterr().out == "12 llama\n"


@pytest.mark.torch
@pytest.mark.slow
def test_transformers_from_gguf(setting: Setting, way: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    for package in ("gguf", "transformers"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    script = """
        import sys, torch
        from transformers import AutoModelForCausalLM
        model = AutoModelForCausalLM.from_pretrained(sys.argv[1], gguf_file="model.gguf")
        print(tuple(model(torch.tensor([[1, 2, 3]])).logits.shape))
    """
    sealed = setting.seal(("model.gguf", _tiny_gguf(setting.folder / "made.gguf")), kind="gguf")
    assert setting.python(sealed, script, "{folder}", options=way) == 0
    assert capfd.readouterr().out == "(1, 3, 64)\n"


@pytest.mark.slow
def test_llama_cpp(setting: Setting, way: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed: it compiles for minutes")
    script = """
        import sys
        from llama_cpp import Llama
        model = Llama(sys.argv[1], n_ctx=32, n_threads=1, verbose=False)
        model.eval([1, 2, 3])
        print(model.n_vocab())
    """
    sealed = setting.seal(("model.gguf", _tiny_gguf(setting.folder / "made.gguf")), kind="gguf")
    assert setting.python(sealed, script, options=way) == 0
    assert capfd.readouterr().out.splitlines()[-1] == "64"


def _tiny_gguf(path: Path) -> bytes:
    """A llama of one layer with random weights and a vocabulary of 64 pieces."""
    from gguf import GGUFWriter, TokenType

    size, vocabulary = 32, 64
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(size)
    writer.add_block_count(1)
    writer.add_feed_forward_length(size)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(size // 2)
    writer.add_vocab_size(vocabulary)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(["<unk>", "<s>", "</s>", "<0x0A>", *(f"▁t{number}" for number in range(vocabulary - 4))])
    writer.add_token_scores([0.0] * vocabulary)
    special = [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL, TokenType.BYTE]
    writer.add_token_types([*special, *([TokenType.NORMAL] * (vocabulary - 4))])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    generator = np.random.default_rng(0)
    shapes = {"token_embd": (vocabulary, size), "output": (vocabulary, size), "output_norm": (size,)}
    shapes |= {f"blk.0.{name}": (size,) for name in ("attn_norm", "ffn_norm")}
    square = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    shapes |= {f"blk.0.{name}": (size, size) for name in square}
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", generator.standard_normal(shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    data = path.read_bytes()
    path.unlink()
    return data
