"""Systemd units: a gate, reloaded by SIGHUP, and beside it, where it asks nobody, what refreshes feeds by a timer.

Both are shut in as far as they can be.

Every line beyond the usual ones is one of `systemd-analyze security`; what is left out has its reason here.
"""

from pathlib import Path

from palladion.errors import PolicyError
from palladion.gate.deploy.plan import Plan, plain

NAME = "palladion.service"
REFRESH_NAME, TIMER_NAME = "palladion-intel.service", "palladion-intel.timer"
REFRESH_SECONDS_MAX = 900  # for all feeds that are due: each server has a minute, and more for what is large
DESCRIPTORS = 8192  # connections, and files that the ledger writes at once
_SHUT_IN = (
    "PrivateTmp=true",
    "PrivateDevices=true",
    "",
    "# it needs no privilege",
    "NoNewPrivileges=true",
    "CapabilityBoundingSet=",
    "AmbientCapabilities=",
    "RestrictSUIDSGID=true",
    "RestrictRealtime=true",
    "RestrictNamespaces=true",
    "LockPersonality=true",
    "MemoryDenyWriteExecute=true",
    "RemoveIPC=true",
    "KeyringMode=private",
    "ProtectClock=true",
    "ProtectHostname=true",
    "ProtectControlGroups=true",
    "ProtectKernelLogs=true",
    "ProtectKernelModules=true",
    "ProtectKernelTunables=true",
    "ProtectProc=invisible",
    "SystemCallArchitectures=native",
    "SystemCallFilter=@system-service",
    "SystemCallFilter=~@privileged",
)
_LOOPBACK_ALONE = ("IPAddressDeny=any", "IPAddressAllow=localhost")
_RUN = Path("/run")  # folders there are gone after a start of the machine, and systemd makes them


def unit(plan: Plan, *, home: Path, directory: Path, identity: Path, program: str, user: str) -> str:
    """The text of the unit: `program` serves the installation at `home`, as `user`, and writes to `directory`.

    Raises PolicyError where it could not make a socket that the policy names, and on names that no file can hold.
    """
    for path in (str(home), str(directory), str(identity), program, user):
        plain(path, "a path of the unit")
    lines = [
        "[Unit]",
        "Description=Palladion gate",
        "Wants=network-online.target",
        "After=network-online.target",
        "",
        "[Service]",
        "Type=exec",
        f'ExecStart="{program}" --home "{home}" serve',
        "ExecReload=/bin/kill -HUP $MAINPID",
        f"User={user}",
        "Restart=on-failure",
        "RestartSec=2",
        # the gate says no to balancers, answers what it has, and closes the ledger
        "KillSignal=SIGTERM",
        f"TimeoutStopSec={plan.stop_seconds}",
        f"LimitNOFILE={DESCRIPTORS}",
        *_writing_to(directory, home),
        *_socket_lines(plan, home, directory),
        *_home_lines(home, directory, identity, *_socket_folders(plan, home)),
        *_SHUT_IN,
        *_group_lines(plan),
        "SystemCallErrorNumber=EPERM",
        "",
        "# it speaks IP, and to commands through a socket",
        "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX",
        *_network_lines(plan),
        "",
        "[Install]",
        "WantedBy=multi-user.target",
    ]
    return "\n".join(lines) + "\n"


def refresh_unit(plan: Plan, *, home: Path, directory: Path, identity: Path, program: str, user: str) -> str:
    """The unit that refreshes feeds once, beside a gate that does not: it may ask others, and the gate need not.

    A running gate writes its records. Raises PolicyError on names that no file can hold.
    """
    for path in (str(home), str(directory), str(identity), program, user):
        plain(path, "a path of the unit")
    lines = [
        "[Unit]",
        "Description=Palladion feeds of threat intelligence",
        "Wants=network-online.target",
        "After=network-online.target",
        "",
        "[Service]",
        "Type=oneshot",
        f'ExecStart="{program}" --home "{home}" intel refresh',
        f"User={user}",
        f"TimeoutStartSec={REFRESH_SECONDS_MAX}",
        *_writing_to(directory, home),
        *_home_lines(home, directory, identity),
        *_SHUT_IN,
        "SystemCallErrorNumber=EPERM",
        "",
        "# it asks servers of feeds, and a running gate through its socket",
        "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX",
        *([] if any(not server.loopback for server in plan.feed_servers) else _LOOPBACK_ALONE),
    ]
    return "\n".join(lines) + "\n"


def timer() -> str:
    """The text of the timer: every hour what is due, at some minute."""
    return timer_of("Refresh Palladion's feeds of threat intelligence", every="hourly", delay="30min")


def timer_of(description: str, *, every: str, delay: str) -> str:
    """The text of a timer: `every` as systemd takes it, within `delay`, and after a start that it slept through."""
    lines = [
        "[Unit]",
        f"Description={description}",
        "",
        "[Timer]",
        f"OnCalendar={every}",
        f"RandomizedDelaySec={delay}",
        "Persistent=true",
        "",
        "[Install]",
        "WantedBy=timers.target",
    ]
    return "\n".join(lines) + "\n"


def _writing_to(directory: Path, home: Path) -> list[str]:
    return [
        # models and keys are in memory, and a core file would hold both
        "LimitCORE=0",
        "UMask=0077",
        "",
        "# it writes to the folder of the installation, and to nothing else",
        "ProtectSystem=strict",
        f'ReadWritePaths="{directory}"',
        f'ReadOnlyPaths="{home}"',
    ]


def folders_needed(plan: Plan, *, home: Path, directory: Path) -> list[Path]:
    """Folders of sockets that have to be there and belong to the user; neither systemd nor the gate makes them."""
    folders = dict.fromkeys(_socket_folders(plan, home))
    return [folder for folder in folders if folder.parent != _RUN and not folder.is_relative_to(directory)]


def _socket_lines(plan: Plan, home: Path, directory: Path) -> list[str]:
    """Let it make its sockets, in folders that hold nothing it must not change."""
    lines: list[str] = []
    for socket, folder in zip(plan.sockets, _socket_folders(plan, home), strict=True):
        if folder.parent == _RUN:
            # whoever may connect has to get through, and each socket has a mode of its own
            lines += [f'RuntimeDirectory="{folder.name}"', "RuntimeDirectoryMode=0755"]
        if folder in (home, *home.parents, _RUN):
            raise PolicyError(
                f"{socket.setting} is {socket.path}, and {folder} is read-only to the unit",
                "give it a folder that systemd makes, for example /run/palladion/gate.sock",
            )
    lines += [f'ReadWritePaths="{folder}"' for folder in folders_needed(plan, home=home, directory=directory)]
    return list(dict.fromkeys(lines))


def _group_lines(plan: Plan) -> list[str]:
    """Let it give a socket to a group, which has to be one of its own."""
    groups = dict.fromkeys(socket.group for socket in plan.sockets if socket.group)
    if not groups:
        return []
    return ["SystemCallFilter=@chown", f"SupplementaryGroups={' '.join(groups)}"]


def _socket_folders(plan: Plan, home: Path) -> list[Path]:
    return [(home / Path(socket.path).expanduser()).parent for socket in plan.sockets]


def _home_lines(*paths: Path) -> list[str]:
    """Hide the folders of people, unless the installation lies in one."""
    if any(f"{path}/".startswith(("/home/", "/root/", "/run/user/")) for path in paths):
        return ["# something of it is in the folder of a person; elsewhere, ProtectHome=true would hide those"]
    return ["ProtectHome=true"]


def _network_lines(plan: Plan) -> list[str]:
    if not plan.local:
        return []
    return [*_LOOPBACK_ALONE]
