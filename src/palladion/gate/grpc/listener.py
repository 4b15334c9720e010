"""The gate's listener for gRPC: opened beside that for HTTP, with the limits that gRPC leaves to whoever serves.

Nothing of it is loaded unless the policy names an address. What a call is, is in `calls`.
"""

import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from palladion.errors import PolicyError
from palladion.gate.connections import HEAD_BYTES_MAX, HEAD_SECONDS_MAX
from palladion.gate.gate import Gate
from palladion.gate.grpc.address import GrpcAddress, credentials, grpc_address
from palladion.gate.grpc.messages import SERVICE, missing
from palladion.gate.listener import DRAIN_SECONDS
from palladion.policy import GatePolicy

CONNECTIONS_MAX = 1024  # a client needs one for all its calls; they come from the descriptors that HTTP leaves free
IDLE_SECONDS = 20  # strangers count as connections, and gRPC knows no limit for each address
STREAMS_MAX = 128  # calls on one connection at once: as many as proxies have
CALLS_MAX = 4096  # at once, strangers included; how many are worked on says gate.requests_max
# What a connection may do: by the second, and as gRPC names it.
CONNECTION_SECONDS_MAX = 3600  # clients come again by themselves; calls that never end do not outlive it
PING_SECONDS, PING_ANSWER_SECONDS = 30, 20  # whether a peer is still there, and reads
PINGS_SECONDS_MIN = 10  # between a client's own
_QUIET = "GRPC_VERBOSITY"  # an environment variable


def options(policy: GatePolicy) -> list[tuple[str, int]]:
    """What gRPC is told; it waits for a peer no longer than HTTP does, and takes no message that HTTP would not."""
    return [
        ("grpc.max_receive_message_length", policy.body_bytes_max),
        ("grpc.max_concurrent_streams", STREAMS_MAX),
        ("grpc.max_allowed_incoming_connections", CONNECTIONS_MAX),
        ("grpc.max_metadata_size", HEAD_BYTES_MAX),
        ("grpc.absolute_max_metadata_size", HEAD_BYTES_MAX),
        ("grpc.server_handshake_timeout_ms", int(HEAD_SECONDS_MAX * 1000)),
        ("grpc.max_connection_idle_ms", IDLE_SECONDS * 1000),
        ("grpc.max_connection_age_ms", CONNECTION_SECONDS_MAX * 1000),
        ("grpc.max_connection_age_grace_ms", DRAIN_SECONDS * 1000),
        ("grpc.keepalive_time_ms", PING_SECONDS * 1000),
        ("grpc.keepalive_timeout_ms", PING_ANSWER_SECONDS * 1000),
        ("grpc.http2.min_ping_interval_without_data_ms", PINGS_SECONDS_MIN * 1000),
        # none but what is as it is: a few bytes could become as many as a message may have
        ("grpc.compression_enabled_algorithms_bitset", 1),
        # or another process of this user could listen beside us, and be sent every second key
        ("grpc.so_reuseport", 0),
    ]


def check_grpc(policy: GatePolicy) -> GrpcAddress | None:
    """Where to listen, if anywhere. Raises PolicyError, and MissingExtraError where the extra is not installed."""
    address = grpc_address(policy)
    if address is not None and not _is_installed():
        raise missing()
    return address


class GrpcListener:
    """Serves what a gate serves over gRPC, where the policy says so. Safe to close twice, and before it was started."""

    def __init__(self, gate: Gate, policy: GatePolicy, home: Path, say: Callable[[str], None]) -> None:
        """File names in the policy are relative to `home`. Raises as `check_grpc` does."""
        self._gate, self._policy, self._home, self._say = gate, policy, home, say
        self._address = check_grpc(policy)
        self._server: Any = None
        self.port = 0

    async def start(self) -> None:
        """Listen, and say where. Raises PolicyError where the address cannot be had."""
        if self._address is None:
            return
        # what strangers send that is no gRPC is their affair, and must not fill a log
        os.environ.setdefault(_QUIET, "NONE")
        import grpc

        from palladion.gate.grpc.calls import Calls
        from palladion.gate.grpc.front import RPCS, Front
        from palladion.gate.grpc.messages import load_messages

        calls = Calls(Front(self._gate), load_messages())
        handlers = {rpc: grpc.stream_unary_rpc_method_handler(calls.handler(rpc)) for rpc in RPCS}
        self._server = grpc.aio.server(options=options(self._policy), maximum_concurrent_rpcs=CALLS_MAX)
        self._server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, handlers)])
        self.port = self._open(self._server, self._address)
        await self._server.start()
        self._say(f"open inference over gRPC on {self._address.url(self.port)}")

    async def close(self) -> None:
        """Accept nothing more, and let what is being answered end."""
        server, self._server = self._server, None
        if server is not None:
            await server.stop(DRAIN_SECONDS)

    def _open(self, server: Any, address: GrpcAddress) -> int:
        try:
            if address.secure:
                return int(server.add_secure_port(address.text, credentials(self._policy, self._home)))
            return int(server.add_insecure_port(address.text))
        except RuntimeError:
            # gRPC's own words name an environment variable
            raise PolicyError(
                f"gate.grpc_listen: {address.text} cannot be opened", "is another process on that port?"
            ) from None


def _is_installed() -> bool:
    try:
        return find_spec("grpc") is not None and find_spec("google.protobuf") is not None
    except ModuleNotFoundError:  # there is no google at all
        return False
