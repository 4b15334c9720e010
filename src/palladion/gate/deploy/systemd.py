"""A systemd unit for a gate: started after the network, reloaded by SIGHUP, and shut in as far as it can be.

Every line beyond the usual ones is one of `systemd-analyze security`; what is left out has its reason here.
"""

from pathlib import Path

from palladion.gate.deploy.plan import Plan, plain

NAME = "palladion.service"
DESCRIPTORS = 8192  # connections, and files that the ledger writes at once


def unit(plan: Plan, *, home: Path, directory: Path, identity: Path, program: str, user: str) -> str:
    """The text of the unit: `program` serves the installation at `home`, as `user`, and writes to `directory`."""
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
        # models and keys are in memory, and a core file would hold both
        "LimitCORE=0",
        "UMask=0077",
        "",
        "# it writes to the folder of the installation, and to nothing else",
        "ProtectSystem=strict",
        f'ReadWritePaths="{directory}"',
        f'ReadOnlyPaths="{home}"',
        *_home_lines(home, directory, identity),
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


def _home_lines(home: Path, directory: Path, identity: Path) -> list[str]:
    """Hide the folders of people, unless the installation lies in one."""
    if any(str(path).startswith(("/home/", "/root/", "/run/user/")) for path in (home, directory, identity)):
        return [
            "# installation or host identity is in the folder of a person; elsewhere, ProtectHome=true would hide them"
        ]
    return ["ProtectHome=true"]


def _network_lines(plan: Plan) -> list[str]:
    if not plan.local:
        return []
    return ["IPAddressDeny=any", "IPAddressAllow=localhost"]
