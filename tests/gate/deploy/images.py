"""The generated Containerfile built without any registry, and its image run as Podman would run it.

The base images are made from Debian's packages, unpacked and not configured, which is how distroless images are made.
The first one's `apt-get` is a stand-in, since its packages are in it already: it fails for any other ones.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

ROOT = Path(__file__).resolve().parents[3]
PROGRAMS = ("apt-get", "dpkg-deb", "buildah", "crun", "unshare")
CODENAME, PYTHON = "bookworm", (3, 11)  # of both base images
RUNS = (
    *("base-files", "gcc-12-base", "libbz2-1.0", "libc6", "libcrypt1", "libexpat1", "libffi8", "libgcc-s1", "liblzma5"),
    *("libpython3-stdlib", "libpython3.11-minimal", "libpython3.11-stdlib", "libsqlite3-0", "libssl3", "libstdc++6"),
    *("libuuid1", "media-types", "netbase", "python3", "python3-minimal", "python3.11", "python3.11-minimal", "tzdata"),
    "zlib1g",
)
BUILDS = (
    *RUNS,
    *("coreutils", "dash", "libacl1", "libattr1", "libgmp10", "libpcre2-8-0", "libselinux1", "python3-distutils"),
    *("python3-pip-whl", "python3-setuptools-whl", "python3-venv", "python3.11-venv"),
)
STAND_IN = """\
#!/bin/sh
case "$*" in
  update | "install -y --no-install-recommends python3 python3-venv") ;;
  *) echo "this is no apt-get, and cannot: $*" >&2; exit 1 ;;
esac
"""
# crun refuses to begin where both forms of cgroups are mounted: it sees the newer one, in a namespace that ends with it
ALONE = ("unshare", "--mount", "sh", "-c", 'mount -t cgroup2 cgroup2 /sys/fs/cgroup 2>/dev/null; exec "$@"', "sh")
POLICY = b'{"default": [{"type": "insecureAcceptAnything"}]}'  # of images that are made here
SECONDS_MAX = 300.0  # for one program, on a busy machine


def need() -> None:
    """Skip, unless images can be built and run here."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        pytest.skip(f"this needs {', '.join(missing)} (on Debian: buildah, crun)")
    if os.geteuid() != 0:
        pytest.skip("this needs root: images are unpacked and run with users of their own")
    if _try(["unshare", "--mount", "true"]).returncode != 0:
        pytest.skip("this needs namespaces for mounts, which this machine does not let anybody make")
    if f"VERSION_CODENAME={CODENAME}\n" not in Path("/etc/os-release").read_text() or sys.version_info[:2] != PYTHON:
        pytest.skip("this needs Debian 12 and Python 3.11, which are those of the base images")


def wheels(folder: Path) -> None:
    """The wheels of this tree and of all that it needs, as the documentation says to get them; or skip."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "-w", str(folder)]
    made = _try([*command, "-c", str(ROOT / "constraints.txt"), str(ROOT)])
    if made.returncode != 0:
        pytest.skip(f"this needs wheels, and they cannot be had: {made.stderr.strip().splitlines()[-1:]}")


# from the folder in the container to the one outside, and "rw" or "ro"
Volumes = Mapping[str, tuple[Path, str]]


@dataclass(frozen=True)
class Store:
    """Where images are kept: a folder of the test, not the machine's."""

    folder: Path

    @property
    def command(self) -> list[str]:
        """Buildah for this folder."""
        # vfs: files are copied, so that nothing is mounted that a killed test would leave behind
        root, run = self.folder / "root", self.folder / "run"
        return ["buildah", "--root", str(root), "--runroot", str(run), "--storage-driver", "vfs"]

    def buildah(self, *arguments: str) -> str:
        """What it prints; the test fails where it does."""
        ended = _try([*self.command, *arguments])
        assert ended.returncode == 0, f"buildah {' '.join(arguments)}: {ended.stdout}{ended.stderr}"
        return ended.stdout.strip()

    def base(self, name: str, packages: Sequence[str], programs: Mapping[str, str]) -> str:
        """An image of what is in Debian's packages, and of programs besides; its name. Skips without the packages."""
        debs, root = self.folder / "debs", self.folder / f"{name}.root"
        debs.mkdir(exist_ok=True)
        root.mkdir()
        absent = [package for package in packages if not list(debs.glob(f"{package}_*.deb"))]
        ended = _try(["apt-get", "download", "-qq", *absent], debs) if absent else None
        if ended is not None and ended.returncode != 0:
            pytest.skip(f"this needs packages of Debian, and they cannot be had: {ended.stderr.strip()[-200:]}")
        for package in packages:
            (deb,) = debs.glob(f"{package}_*.deb")
            assert _try(["dpkg-deb", "-x", str(deb), str(root)]).returncode == 0, package
        for path, text in programs.items():
            (root / path).write_text(text)
            (root / path).chmod(0o755)
        rule = self.folder / f"{name}.containerfile"
        rule.write_text("FROM scratch\nCOPY . /\n")
        self.buildah("build", "--quiet", *self._policy(), "-t", f"localhost/{name}", "-f", str(rule), str(root))
        shutil.rmtree(root)
        return f"localhost/{name}"

    def build(self, folder: Path, **arguments: str) -> str:
        """The image of a folder's Containerfile; its name."""
        given = [f"--build-arg={name}={value}" for name, value in arguments.items()]
        self.buildah("build", "--pull-never", *self._policy(), "-t", "localhost/gate", *given, str(folder))
        return "localhost/gate"

    def unpack(self, image: str) -> tuple[Path, dict[str, Any]]:
        """The files of an image, and how it wants to be run."""
        root = self.buildah("mount", self.buildah("from", "--pull-never", *self._policy(), image))
        config: dict[str, Any] = msgspec.json.decode(self.buildah("inspect", "--type", "image", image))
        return Path(root), config["OCIv1"]["config"]

    def _policy(self) -> list[str]:
        path = self.folder / "policy.json"
        path.write_bytes(POLICY)
        return ["--signature-policy", str(path)]


@contextmanager
def store(folder: Path) -> Iterator[Store]:
    """A store that is gone afterwards: it takes a gigabyte."""
    folder.mkdir()
    made = Store(folder)
    try:
        yield made
    finally:
        _try([*made.command, "rm", "-a"])
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class Container:
    """An image that runs."""

    process: subprocess.Popen[str]
    crun: tuple[str, ...]

    def python(self, code: str) -> Any:
        """What the container's own Python prints as JSON."""
        ended = _try([*self.crun, "exec", "gate", "/usr/bin/python3", "-c", code])
        assert ended.returncode == 0, ended.stderr
        return msgspec.json.decode(ended.stdout)

    def stop(self, signal: str) -> int:
        """Its exit code, after the signal that the image names."""
        assert _try([*self.crun, "kill", "gate", signal.removeprefix("SIG")]).returncode == 0
        return self.process.wait(SECONDS_MAX)


@contextmanager
def running(folder: Path, root: Path, config: Mapping[str, Any], volumes: Volumes) -> Iterator[Container]:
    """`podman run --read-only --cap-drop all --security-opt no-new-privileges`, with a network of its own."""
    bundle = folder / "bundle"
    bundle.mkdir()
    (bundle / "config.json").write_bytes(msgspec.json.encode(_specification(root, config, volumes)))
    crun = (*ALONE, "crun", "--root", str(folder / "crun"), "--cgroup-manager=disabled")
    process = subprocess.Popen(
        [*crun, "run", "--bundle", str(bundle), "gate"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        yield Container(process, crun)
    finally:
        _try([*crun, "delete", "--force", "gate"])
        process.kill()
        process.wait(SECONDS_MAX)
        assert process.stdout is not None
        process.stdout.close()


def _specification(root: Path, config: Mapping[str, Any], volumes: Volumes) -> dict[str, Any]:
    user, group = map(int, config["User"].split(":"))
    mounts = [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=65536k"]},
        # Podman makes this one beside a read-only root, too
        {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "mode=1777"]},
    ]
    for where, (source, mode) in volumes.items():
        mounts.append(
            {"destination": where, "type": "bind", "source": str(source), "options": ["bind", mode, "nosuid"]}
        )
    return {
        "ociVersion": "1.0.0",
        "process": {
            "user": {"uid": user, "gid": group},
            "args": config["Entrypoint"] + config["Cmd"],
            "env": config["Env"],
            "cwd": config["WorkingDir"],
            "capabilities": {},
            "noNewPrivileges": True,
        },
        "root": {"path": str(root), "readonly": True},
        "mounts": mounts,
        "linux": {"namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")]},
    }


def _try(command: Sequence[str], folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"BUILDAH_ISOLATION": "chroot"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=SECONDS_MAX
    )
