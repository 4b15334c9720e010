"""Units of systemd for work that is done again and again, and asks nobody: shut in, at the lowest priority.

What is done, how long it may take and when are others' business: `reexecution`, and the audits of the red team.
"""

from collections.abc import Sequence
from pathlib import Path

from palladion.gate.deploy.documents import job_name
from palladion.gate.deploy.plan import plain
from palladion.gate.deploy.systemd import timer_of
from palladion.lifecycle.open import parse_version
from palladion.registry.names import slug

# It needs no privilege, no devices, and not even loopback: the ledger of a running gate is behind a socket of files
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


def names(work: str, model: str) -> tuple[str, str]:
    """What the unit and the timer of this work on a model, or on `fraud@3`, are called. Each model has its own.

    Raises PalladionError on what is no name of a model.
    """
    name = routine_name(work, model)
    return f"{name}.service", f"{name}.timer"


def routine_name(work: str, model: str) -> str:
    """What this work on a model is called, in a cluster too: a DNS label of 52 characters at most.

    Raises PalladionError on what is no name of a model.
    """
    slug(parse_version(model)[0], what="the name of the model")
    return job_name(f"palladion-{work}", model)


def routine(command: Sequence[str], *, description: str, directory: Path, user: str, seconds_max: int) -> str:
    """The unit that runs `command`, a program and its arguments, as `user`; it writes to `directory` alone.

    A command that ends with anything but 0 leaves the unit failed, where monitoring sees it. Raises PolicyError on
    names that no file can hold.
    """
    for text in (*command, str(directory), user, description):
        plain(text, "an argument of the unit")
    lines = [
        "[Unit]",
        f"Description={description}",
        "",
        "[Service]",
        "Type=oneshot",
        "ExecStart=" + " ".join(f'"{text}"' for text in command),
        f"User={user}",
        f"TimeoutStartSec={seconds_max}",
        "Nice=19",
        "IOSchedulingClass=idle",
        "LimitCORE=0",
        "UMask=0077",
        f'ReadWritePaths="{directory}"',
        *_SHUT_IN,
    ]
    return "\n".join(lines) + "\n"


def routine_timer(description: str, every: str) -> str:
    """The timer: `every` as systemd takes it (daily, or a calendar event), within an hour. Raises PolicyError."""
    return timer_of(description, every=plain(every, "how often"), delay="1h")
