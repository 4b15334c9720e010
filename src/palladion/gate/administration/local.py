"""The socket for operators of the same machine: each is the user that the system names, and none need sign in."""

import asyncio
import os
import shutil
import socket
import stat
from pathlib import Path

from palladion.errors import PolicyError
from palladion.gate.admin import peer_uid
from palladion.gate.administration.pages import UNIX
from palladion.gate.operations.peers import PeerConnection
from palladion.policy import OperatorsPolicy

# Everybody of the machine may connect, or a group's people: what they may do is decided by who they are.
EVERYBODY_MODE, GROUP_MODE = 0o666, 0o660
BACKLOG = 32


class LocalConnection(PeerConnection):
    """A connection through the socket; in place of an address it has the user's number (SO_PEERCRED)."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        """Let a peer in."""
        super().connection_made(transport)
        self.client = (UNIX, peer_uid(transport))

    def name_peer(self, transport: asyncio.BaseTransport) -> str:
        """The user."""
        return f"{UNIX} {peer_uid(transport)}"


def open_socket(policy: OperatorsPolicy, home: Path) -> socket.socket:
    """The listening socket, in place of one that a crash left. Raises PolicyError."""
    path = home / Path(policy.socket).expanduser()
    _require_own_folder(path.parent)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.is_socket():
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                if probe.connect_ex(str(path)) == 0:
                    raise PolicyError(f"operators.socket: another process answers at {path}", "stop it first")
            path.unlink()
        # before bind, so that there is no moment in which the name has a wider mode (Linux takes it over)
        os.fchmod(listener.fileno(), 0o600)
        listener.bind(str(path))
        if policy.socket_group:
            shutil.chown(path, group=policy.socket_group)
        path.chmod(GROUP_MODE if policy.socket_group else EVERYBODY_MODE)
        listener.listen(BACKLOG)
    except (OSError, LookupError) as error:
        listener.close()
        reason = str(getattr(error, "strerror", None) or error).lower()
        raise PolicyError(f"operators.socket: {path} cannot be opened: {reason}") from None
    except BaseException:
        listener.close()
        raise
    return listener


def _require_own_folder(folder: Path) -> None:
    """Raise PolicyError for a folder in which somebody else could put a name of his own in the socket's place.

    The mode is given to whatever has that name: by a link, any file of ours would become everybody's.
    """
    try:
        found = folder.stat()
    except OSError as error:
        raise PolicyError(f"operators.socket: {folder} cannot be opened: {(error.strerror or '').lower()}") from None
    sticky = found.st_mode & stat.S_ISVTX  # there, only its owner takes a name away
    if found.st_uid not in {0, os.geteuid()} or (found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not sticky):
        raise PolicyError(
            f"operators.socket: others can change what is in {folder}, and could take the socket's place",
            f"chmod go-w {folder}, and let it belong to the gate's account",
        )
