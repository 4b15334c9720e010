"""What does the core install cost a user: download, disk, packages, and the time until the command line answers?"""

import subprocess
import sys
import tempfile
from pathlib import Path

from bench.report import Report, Timing, main
from tools.distributions import closure, direct, disk_bytes


def measure(report: Report) -> None:
    """Fill the report. The download is measured by downloading; the quick form leaves it out."""
    core = direct()
    packages = closure(core)
    report.at_most("direct dependencies", len(core), "packages", 18)
    report.at_most("packages", len(packages), "packages", 45)
    report.at_most("on disk", sum(map(disk_bytes, packages.values())) / 1e6, "MB", 350)
    if not report.quick:
        pins = [f"{name}=={item.version}" for name, item in packages.items()]
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check"]
            subprocess.run([*command, "--no-cache-dir", "-d", folder, *pins], check=True, stderr=subprocess.DEVNULL)
            total = sum(path.stat().st_size for path in Path(folder).iterdir())
        report.at_most("to download", total / 1e6, "MB", 90)
    bare, ours = _starts(5 if report.quick else 15)
    report.add("start of Python", bare.median * 1000, "ms CPU", reference=f"spread {bare.spread * 1000:.0f} ms")
    reference = f"{ours.median / bare.median:.1f}x bare Python"
    report.add("palladion --version", ours.median * 1000, "ms CPU", reference=reference)


def _starts(repeats: int) -> tuple[Timing, Timing]:
    """CPU time of starting Python alone and of `palladion --version`, in turns."""
    import resource
    import statistics

    def once(arguments: list[str]) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    taken: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        taken[0].append(once(["-c", "pass"]))
        taken[1].append(once(["-m", "palladion", "--version"]))
    bare, ours = (Timing(statistics.median(times), max(times) - min(times), min(times)) for times in taken)
    return bare, ours


if __name__ == "__main__":
    main("install", __doc__ or "", measure)
