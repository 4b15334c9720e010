"""Audits by a timer of systemd: a unit that runs one, and a timer that starts it."""

from collections.abc import Sequence
from pathlib import Path

from palladion.gate.deploy.plan import plain
from palladion.gate.deploy.systemd import timer_of

UNIT, TIMER = "palladion-redteam.service", "palladion-redteam.timer"
SECONDS_MAX = 24 * 3600  # a thorough audit takes a night
# An audit trains networks and asks nobody: it needs no privilege, no devices, and not even loopback
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


def unit(arguments: Sequence[str], *, home: Path, directory: Path, out: Path, program: str, user: str) -> str:
    """The unit that runs `palladion redteam run` with these arguments, at the lowest priority.

    Writes to `directory` alone, the installation's, where the ledger is; `out` lies in it. Raises PolicyError on names
    that no file can hold.
    """
    named = [program, str(home), "redteam", "run", *arguments, "--out", str(out), "--anew"]
    for text in (*named, user):
        plain(text, "an argument of the audit")
    command = " ".join(f'"{text}"' for text in (program, "--home", str(home), *named[2:]))
    lines = [
        "[Unit]",
        "Description=Palladion red team",
        "",
        "[Service]",
        "Type=oneshot",
        # 1: a bar fails, 3: it cannot be said; both leave the unit failed, where monitoring sees it
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
    """The timer: `every` as systemd takes it (weekly, monthly, or a calendar event)."""
    return timer_of("Run the Palladion red team", every=plain(every, "how often the audit runs"), delay="1h")
