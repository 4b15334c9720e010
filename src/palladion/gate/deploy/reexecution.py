"""Answers computed again by a timer of systemd: a unit that does it, and a timer that starts it."""

from collections.abc import Sequence
from pathlib import Path

from palladion.gate.deploy.plan import plain
from palladion.gate.deploy.systemd import timer_of

UNIT, TIMER = "palladion-reexecute.service", "palladion-reexecute.timer"
SECONDS_MAX = 3600  # of 10,000 answers of a small model; a large one needs a smaller sample
# It runs the model and asks nobody: the ledger of a running gate is behind a socket of this machine
_SHUT_IN = (
    "ProtectSystem=strict",
    "PrivateTmp=true",
    "PrivateDevices=true",
    "NoNewPrivileges=true",
    "CapabilityBoundingSet=",
    "RestrictSUIDSGID=true",
    "RestrictNamespaces=true",
    "LockPersonality=true",
    "ProtectControlGroups=true",
    "ProtectKernelModules=true",
    "ProtectKernelTunables=true",
    "ProtectProc=invisible",
    "SystemCallArchitectures=native",
    "SystemCallFilter=@system-service",
    "RestrictAddressFamilies=AF_UNIX",
)


def unit(arguments: Sequence[str], *, home: Path, directory: Path, program: str, user: str) -> str:
    """The unit that runs `palladion watch reexecute` with these arguments, at the lowest priority.

    Writes to `directory` alone, the installation's. Raises PolicyError on names that no file can hold.
    """
    named = [program, "--home", str(home), "watch", "reexecute", *arguments]
    for text in (*named, str(directory), user):
        plain(text, "an argument of the unit")
    command = " ".join(f'"{text}"' for text in named)
    lines = [
        "[Unit]",
        "Description=Palladion computes answers again",
        "",
        "[Service]",
        "Type=oneshot",
        # 1: answers differ, 3: it cannot be said; both leave the unit failed, where monitoring sees it
        f"ExecStart={command}",
        f"User={user}",
        f"TimeoutStartSec={SECONDS_MAX}",
        "Nice=19",
        "IOSchedulingClass=idle",
        "LimitCORE=0",
        "UMask=0077",
        f'ReadWritePaths="{directory}"',
        *_SHUT_IN,
    ]
    return "\n".join(lines) + "\n"


def timer(every: str) -> str:
    """The timer: `every` as systemd takes it (daily, or a calendar event). Raises PolicyError."""
    return timer_of("Compute answers of the model server again", every=plain(every, "how often"), delay="1h")
