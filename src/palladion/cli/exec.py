"""`palladion exec`: any engine on a sealed model, with no plaintext on a disk."""

import os
import re
import shutil
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from palladion.cli.broker_options import asked, broker_client, broker_options
from palladion.cli.output import HOST_IDENTITIES, HOST_PUBLISHERS, echo, find_host, progress, size_text
from palladion.errors import FormatError, NotFoundError, PalladionError

if TYPE_CHECKING:
    from palladion.host.broker import BrokerClient, Lease
    from palladion.host.expose import Exposed, PrivateMount
    from palladion.host.host import Host
    from palladion.host.supervise import Keeper
    from palladion.keys import Identity
    from palladion.seal.manifest import Manifest
    from palladion.seal.structure import SealedInfo

_PLACES = re.compile(r"\{\{\}\}|\{\}|\{folder\}|\{file:(?P<name>[^{}]+)\}")
_PURPOSE = "exec"
_GRACE_SECONDS = 10.0  # for the engine to end by itself once the broker takes the key back
_NO_MODELS = ("keyring", "backup", "clients")


@click.command("exec", epilog="Example: palladion exec fraud.sealed -- llama-server -m {}")
@click.argument("target", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@HOST_IDENTITIES
@HOST_PUBLISHERS
@broker_options
@click.option("--allow-older", is_flag=True, help="Open it even if this host has opened a newer version.")
@click.option(
    "--paths",
    type=click.Choice(("auto", "mount", "links")),
    default="auto",
    show_default=True,
    help="How the engine gets at the memory: files in a mount of its own, or links; auto is a mount where one can be.",
)
def exec_(
    target: Path,
    command: tuple[str, ...],
    identities: tuple[str, ...],
    publishers: tuple[bytes, ...],
    allow_older: bool,
    paths: str,
    **options: Any,
) -> int:
    """Run COMMAND on the model in the sealed file TARGET, decrypted into memory and never to a disk.

    In COMMAND, {} is the model's path: its file, or the folder of several; {file:NAME} is one of several, and {folder}
    always the folder. {{}} is a plain {}.

    With --broker, the key comes from a key broker, which is asked again and again while COMMAND runs; when it says no,
    or is not reached in time, COMMAND is ended and the memory wiped.

    The exit code is COMMAND's, 128 + n if signal n ended it. What fails before it starts is told as an error.
    """
    from palladion.host.supervise import Keeper, hardened

    said = asked(options)
    _check_command(command)
    with ExitStack() as held:
        held.enter_context(hardened())
        keeper = held.enter_context(Keeper.started(_note))
        host = find_host(identities, publishers)
        source = _Keys(host)
        if said is not None:
            source = _Keys(host, _Brokered(broker_client(said, host.folder), said.approval))
        view = _expose(held, keeper, source, target, command, paths=paths, allow_older=allow_older)
        brokered = source.brokered
        del host, source  # with the keys: the engine may run for months
        code = keeper.run([_filled(argument, view) for argument in command])
        return code if brokered is None else brokered.ended(code)


class _Brokered:
    """A broker that gives the key, and what happens when it takes it back."""

    def __init__(self, client: "BrokerClient", approval: str) -> None:
        self.client = client
        self.approval = approval
        self._ended = threading.Event()
        self._lost = False

    def lose(self, _lease: "Lease", why: str) -> None:
        """End the engine, as a signal to us would, and if it stays, end ourselves: then nothing of it is left."""
        self._lost = True
        _note(f"the key is taken back: {why}")
        os.kill(os.getpid(), signal.SIGTERM)
        if not self._ended.wait(_GRACE_SECONDS):
            os.kill(os.getpid(), signal.SIGKILL)

    def ended(self, code: int) -> int:
        """The engine has ended; its exit code, or 1 where it made nothing of losing the model."""
        self._ended.set()
        return code or int(self._lost)


class _Keys(NamedTuple):
    """Where keys come from: what this host has, or a broker."""

    host: "Host"
    brokered: _Brokered | None = None


def _expose(
    held: ExitStack,
    keeper: "Keeper",
    source: _Keys,
    target: Path,
    command: Sequence[str],
    *,
    paths: str,
    allow_older: bool,
) -> "Exposed":
    """The files of `target` for `command`, for as long as `held` lasts; its key is gone when this returns."""
    from palladion.host.expose import exposed, private_folder
    from palladion.seal.opening import begun

    host = source.host

    def accept(info: "SealedInfo") -> None:
        if info.header.kind in _NO_MODELS:
            raise FormatError(f"{target} holds a {info.header.kind}, not a model")
        host.accept(info, place=target, allow_older=allow_older)

    with (
        _identities(source, target) as identities,
        begun(target, identities, host.publishers(), accept=accept) as opening,
    ):
        if source.brokered is not None:
            _keep_asking(held, source.brokered, identities)
        manifest = opening.manifest()
        _check_names(command, manifest)
        folder = held.enter_context(private_folder(keeper.watch))
        mount = _mount(keeper, folder, manifest, paths)
        with progress(f"open {target.name}") as bar:
            view = held.enter_context(exposed(opening, manifest, folder, mount, progress=bar))
        info = opening.info
    host.remember(info)
    _announce(info, view)
    for warning in host.granted.warnings if host.granted else ():
        _note(f"warning: {warning}")
    return view


@contextmanager
def _identities(source: _Keys, target: Path) -> Iterator[Sequence["Identity"]]:
    if source.brokered is None:
        yield source.host.identities()
        return
    from palladion.host.broker import brokered

    with brokered(target, source.brokered.client, purpose=_PURPOSE, approval=source.brokered.approval) as identity:
        yield [identity]


def _keep_asking(held: ExitStack, brokered: _Brokered, identities: Sequence["Identity"]) -> None:
    """From now on, whether the model is in memory yet or not."""
    from palladion.host.broker import BrokeredIdentity
    from palladion.host.broker_lease import kept

    leases = [one.lease for one in identities if isinstance(one, BrokeredIdentity) and one.lease is not None]
    held.enter_context(kept(brokered.client, leases, brokered.lose))
    for lease in leases:
        _note(f"the broker lets this host use it for {lease.seconds} seconds, and is asked again meanwhile")


def _check_command(command: Sequence[str]) -> None:
    """Whatever can be known to be wrong before a key is touched."""
    if not any(match.group() != "{{}}" for argument in command for match in _PLACES.finditer(argument)):
        raise click.UsageError("the command has no {}: where does the model's path go?")
    if shutil.which(command[0]) is None:
        raise NotFoundError(
            f"there is no program {command[0]} that can be run", "check its name, and the PATH it is looked for on"
        )


def _check_names(command: Sequence[str], manifest: "Manifest") -> None:
    from palladion.host.expose import check_file

    for argument in command:
        for match in _PLACES.finditer(argument):
            if match["name"] is not None:
                check_file(manifest, match["name"])


def _mount(keeper: "Keeper", folder: Path, manifest: "Manifest", paths: str) -> "PrivateMount | None":
    from palladion.host.expose import mount_bytes

    if paths == "links":
        return None
    mount = keeper.mount(folder, mount_bytes(manifest))
    if not isinstance(mount, str):
        return mount
    if paths == "mount":
        raise PalladionError(
            f"there can be no mount of the engine's own here: {mount}",
            "docs/exec.md says what it takes; --paths links does without",
        )
    return None


def _announce(info: "SealedInfo", view: "Exposed") -> None:
    header = info.header
    name = f"{header.model} version {header.version}" if header.model else header.kind
    how = "in a mount of the engine's own" if view.way == "mount" else "through links to memory"
    _note(f"{name}, {size_text(info.payload_bytes)} in memory, {how}: {view.path}")
    if view.swappable:
        _note("warning: the model can be swapped to a disk: raise the limit of locked memory, or encrypt the swap")


def _filled(argument: str, view: "Exposed") -> str:
    def fill(match: re.Match[str]) -> str:
        if match["name"] is not None:
            return str(view.folder / match["name"])
        return {"{{}}": "{}", "{}": str(view.path), "{folder}": str(view.folder)}[match.group()]

    return _PLACES.sub(fill, argument)


def _note(sentence: str) -> None:
    with suppress(OSError):  # a full or closed standard error is no reason not to run
        echo(f"palladion: {sentence}", err=True)
