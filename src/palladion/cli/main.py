"""The `palladion` command: finds the command group, runs it, and turns errors into sentences and exit codes.

Groups are imported when they are used, so that `palladion --help` does not load onnxruntime or SQLAlchemy.
"""

import os
import sys
import traceback
from contextlib import suppress
from pathlib import Path

import click

from palladion import __version__
from palladion.cli.lazy import LazyGroup
from palladion.cli.output import echo
from palladion.errors import USAGE, PalladionError

# Where each command lives, in the order in which help shows them.
COMMANDS = {
    "init": "palladion.cli.init:init",
    "protect": "palladion.cli.protect:protect",
    "mark": "palladion.cli.mark:mark",
    "seal": "palladion.cli.seal:seal",
    "unseal": "palladion.cli.unseal:unseal",
    "reseal": "palladion.cli.seal:reseal",
    "rewrap": "palladion.cli.revoke:rewrap",
    "revoke": "palladion.cli.revoke:revoke",
    "exec": "palladion.cli.exec:exec_",
    "scan": "palladion.cli.scan:scan",
    "inspect": "palladion.cli.inspect:inspect",
    "verify": "palladion.cli.verify:verify",
    "pull": "palladion.cli.pull:pull",
    "push": "palladion.cli.push:push",
    "model": "palladion.cli.model:model",
    "recipient": "palladion.cli.recipient:recipient",
    "host": "palladion.cli.host:host",
    "attest": "palladion.cli.attest:attest",
    "release": "palladion.cli.release:release",
    "sign": "palladion.cli.sign:sign",
    "license": "palladion.cli.license:license_group",
    "key": "palladion.cli.key:key",
    "private": "palladion.cli.private:private",
    "client": "palladion.cli.client:client",
    "operator": "palladion.cli.operator:operator",
    "approval": "palladion.cli.approval:approval",
    "serve": "palladion.cli.serve:serve",
    "key-broker": "palladion.cli.key_broker:key_broker",
    "policy": "palladion.cli.policy:policy",
    "deploy": "palladion.cli.deploy:deploy",
    "envoy-config": "palladion.cli.fronts:envoy_config",
    "haproxy-config": "palladion.cli.fronts:haproxy_config",
    "watch": "palladion.cli.watch:watch",
    "disclose": "palladion.cli.disclose:disclose",
    "decoy": "palladion.cli.decoy:decoy",
    "dlp": "palladion.cli.dlp:dlp",
    "redteam": "palladion.cli.redteam:redteam",
    "harden": "palladion.cli.harden:harden",
    "incident": "palladion.cli.incident:incident",
    "alert": "palladion.cli.alert:alert",
    "intel": "palladion.cli.intel:intel",
    "deliver": "palladion.cli.deliver:deliver",
    "prove": "palladion.cli.prove:prove",
    "ledger": "palladion.cli.ledger:ledger",
    "witness": "palladion.cli.witness:witness",
    "doctor": "palladion.cli.doctor:doctor",
    "posture": "palladion.cli.posture:posture",
    "backup": "palladion.cli.backup:backup",
    "restore": "palladion.cli.backup:restore",
    "demo": "palladion.cli.demo:demo",
}
INTERRUPTED = 130
BUG = 70  # EX_SOFTWARE of sysexits.h
MESSAGE_CHARACTERS_MAX = 2000  # messages quote files, and a hostile one can make that long
TRACEBACK = "PALLADION_TRACEBACK"


@click.group(
    cls=LazyGroup, places=COMMANDS, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="palladion", message="%(prog)s %(version)s")
@click.option(
    "--home",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(),
    metavar="FOLDER",
    help="Folder of the installation; without it, the current one or the nearest above it with a palladion.toml.",
)
@click.pass_context
def palladion(ctx: click.Context, home: Path) -> None:
    """Protect AI models from theft over their whole life.

    Exit codes: 0 fine, 1 a check found something, 2 the request could not be carried out, 3 a check could not decide,
    70 a bug of ours.
    """
    ctx.obj = home


def run() -> None:
    """Entry point of the console script: runs one command and exits with its code."""
    sys.exit(main(sys.argv[1:]))


def main(arguments: list[str]) -> int:
    """Run one command; prints errors and hints to standard error, never a bare traceback. Returns the exit code."""
    try:
        code = palladion.main(arguments, prog_name="palladion", standalone_mode=False)
    except PalladionError as error:
        _complain(error.message, error.hints)
        return error.exit_code
    except click.UsageError as error:
        hint = f"try: {error.ctx.command_path} --help" if error.ctx else "try: palladion --help"
        _complain(_lowered(error.format_message()), [hint])
        return USAGE
    except click.ClickException as error:
        _complain(_lowered(error.format_message()), [])
        return USAGE
    except (click.Abort, KeyboardInterrupt):
        _complain("interrupted", [])
        return INTERRUPTED
    except BrokenPipeError:
        # the reader of our output (head, less) is gone: not our failure, and nothing more to say
        sys.stderr.close()
        return 0
    except Exception as error:  # noqa: BLE001 (the last resort: nobody is above to see a traceback but the user)
        return _unexpected(error, arguments)
    return code if isinstance(code, int) else 0


def _unexpected(error: Exception, arguments: list[str]) -> int:
    """Say what went wrong where no command expected it. What the operating system refuses is no bug of ours."""
    if os.environ.get(TRACEBACK):
        for line in traceback.format_exception(error):
            for part in line.splitlines():
                echo(part, err=True)
    if isinstance(error, OSError):
        reason = (error.strerror or str(error)).lower()
        name = os.fsdecode(error.filename) if isinstance(error.filename, bytes) else error.filename
        _complain(reason if name is None else f"{name}: {reason}", [])
        return USAGE
    if isinstance(error, MemoryError):
        _complain("there is not enough memory for this", ["use a machine with more, or raise its limit"])
        return USAGE
    if isinstance(error, UnicodeEncodeError) and not all(map(_is_text, arguments)):
        _complain("an argument holds bytes that are no UTF-8: only the name of a file may", [])
        return USAGE
    hint = f"please report it, as SECURITY.md says if a file brought it about; {TRACEBACK}=1 prints what we need to see"
    _complain(f"this is a bug: {type(error).__name__}: {error}", [hint])
    return BUG


def _is_text(argument: str) -> bool:
    return not any("\ud800" <= c <= "\udfff" for c in argument)


def _complain(message: str, hints: tuple[str, ...] | list[str]) -> None:
    with suppress(OSError):  # standard error is full or closed: the exit code has to do
        for kind, text in (("error", message), *(("hint", hint) for hint in hints)):
            cut = text if len(text) <= MESSAGE_CHARACTERS_MAX else f"{text[:MESSAGE_CHARACTERS_MAX]}…"
            echo(f"palladion: {kind}: {cut}", err=True)


def _lowered(message: str) -> str:
    message = " ".join(message.split())  # click puts choices below each other
    return f"{message[:1].lower()}{message[1:]}".rstrip(".")
