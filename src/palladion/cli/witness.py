"""`palladion witness …`: be a witness of other people's ledgers."""

import secrets
from pathlib import Path

import click

from palladion.cli.output import VERIFIER_KEY, echo, json_option, print_json
from palladion.clock import SystemClock
from palladion.errors import PolicyError
from palladion.ledger.checkpoint import VerifierKey

FOLDER = click.Path(file_okay=False, path_type=Path)


@click.group()
def witness() -> None:
    """Be a witness of other people's ledgers: cosign what they publish, and never two histories."""


@witness.command(epilog="Example: palladion witness new ~/witness --name witness.example.org/w1")
@click.argument("folder", type=FOLDER)
@click.option("--name", required=True, help="Its name in signatures, such as witness.example.org/w1.")
@json_option
def new(folder: Path, name: str, as_json: bool) -> None:
    """Make a witness in FOLDER, and print the key that logs name in their policy."""
    from palladion.ledger.witness import Witness

    key = Witness.create(folder, name, secrets.token_bytes(32))
    if as_json:
        print_json({"folder": str(folder), "key": str(key)})
        return
    echo(f"a witness is in {folder}; logs name it in palladion.toml, with the address where it answers:")
    echo(f'  witnesses = ["{key} https://…"]')


@witness.command(epilog="Example: palladion witness trust ~/witness ledger.example.com/fraud+1a2b3c4d+A…")
@click.argument("folder", type=FOLDER)
@click.argument("key", type=VERIFIER_KEY)
@json_option
def trust(folder: Path, key: VerifierKey, as_json: bool) -> None:
    """Let the witness in FOLDER know a log by its KEY (palladion key list), from its next start on."""
    from palladion.ledger.witness import add_log, read_logs

    add_log(folder, key)
    known = len(read_logs(folder))
    if as_json:
        print_json({"log": key.name, "logs": known})
    else:
        echo(f"{key.name} is cosigned from the next start on; logs known: {known}")


@witness.command(epilog="Example: palladion witness run ~/witness --listen 127.0.0.1:8720")
@click.argument("folder", type=FOLDER)
@click.option("--listen", default="127.0.0.1:8720", show_default=True, help="Address and port.")
@click.option("--tls-certificate", type=click.Path(exists=True, dir_okay=False), help="Certificate chain, PEM.")
@click.option("--tls-key", type=click.Path(exists=True, dir_okay=False), help="Its private key, PEM.")
@json_option
def run(folder: Path, listen: str, tls_certificate: str | None, tls_key: str | None, as_json: bool) -> None:
    """Cosign checkpoints of the logs that FOLDER knows, until it is stopped (Ctrl-C, SIGTERM).

    Answers POST /add-checkpoint (c2sp.org/tlog-witness). Nobody has to sign in: only what a known log has signed is
    cosigned.
    """
    import ipaddress
    import socket

    from palladion.ledger.witness import Witness
    from palladion.ledger.witness_server import serve_witness

    host, _, port = listen.rpartition(":")
    try:
        address = ipaddress.ip_address(host.strip("[]"))
        number = int(port)
    except ValueError:
        raise PolicyError(f"--listen: {listen!r} is not an address and a port such as 127.0.0.1:8720") from None
    if (tls_certificate is None) != (tls_key is None):
        raise PolicyError("--tls-certificate and --tls-key belong together")
    found = Witness(folder, SystemClock())
    try:
        family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
        with socket.create_server((str(address), number), family=family) as listener:
            scheme = "https" if tls_certificate else "http"
            url = f"{scheme}://{listen if number else f'{host}:{listener.getsockname()[1]}'}"
            if as_json:
                print_json({"url": url, "key": str(found.key), "logs": sorted(found.logs)})
            else:
                echo(f"{found.key.name} answers on {url}/add-checkpoint; logs known: {len(found.logs)}")
            serve_witness(
                found,
                listener,
                complain=lambda sentence: echo(f"palladion: error: {sentence}", err=True),
                certificate=tls_certificate,
                private_key=tls_key,
            )
    except OSError as error:
        raise PolicyError(f"--listen: {listen} cannot be opened: {error.strerror or error}") from None
    finally:
        found.close()
