"""`palladion private compile|bundle|key|ask`: a model that answers encrypted queries, and a client that asks it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from palladion import files
from palladion.cli.output import (
    echo,
    json_option,
    passphrase_option,
    passphrase_recipient,
    print_fields,
    print_json,
    print_table,
    progress,
    read_passphrase,
    size_text,
    warn,
)
from palladion.errors import FormatError, KeysError
from palladion.policy import PassphrasePolicy

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from palladion.private.homomorphic.client import HEClient
    from palladion.private.homomorphic.compile import Compiled
    from palladion.private.homomorphic.program import Bundle

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
NEW_FILE = click.Path(dir_okay=False, path_type=Path)
ROWS_BYTES_MAX = 1024**3
KEY_BYTES_MAX = 1024  # of an API key's file
SHOWN_MAX = 20  # answers on a terminal; all of them go into a file or JSON
BUNDLE_SUFFIX = ".bundle"

rows_argument = click.argument("rows", type=FILE)
bundle_option = click.option(
    "--bundle", "bundle_path", type=FILE, required=True, help="The program's bundle, as its owner gave it."
)
secret_option = click.option(
    "--secret", "secret_path", type=FILE, required=True, help="The secret key, as `palladion private key` made it."
)


@click.command("compile", epilog="Example: palladion private compile fraud.onnx --rows typical.npy --out fraud.he")
@click.argument("model", type=FILE)
@click.option("--rows", type=FILE, required=True, help="Typical inputs as the model takes them: .npy, rows × features.")
@click.option("--labels", type=FILE, help="Places of the right outputs for these rows (.npy), to measure accuracy.")
@click.option("--out", type=NEW_FILE, required=True, help="The new program file; its bundle goes beside it.")
@click.option("--rows-at-once", type=click.IntRange(1, 8192), default=32, show_default=True,
              help="Rows for which a ciphertext has place at least: fewer make a shorter wait.")  # fmt: skip
@click.option("--retrain", is_flag=True, help="Teach the polynomials what the model answers. Needs the torch extra.")
@click.option("--agreement", type=click.FloatRange(0.5, 1), default=0.98, show_default=True,
              help="Least share of the rows on which the program has to decide as the model does.")  # fmt: skip
@json_option
def compile_(
    model: Path,
    rows: Path,
    labels: Path | None,
    out: Path,
    rows_at_once: int,
    retrain: bool,
    agreement: float,
    as_json: bool,
) -> None:
    """Make a program of MODEL that answers encrypted queries, and test it under encryption.

    Takes linear models and networks of up to four hidden layers in ONNX; anything else is refused with the reason.
    Activations become polynomials that are fitted to the rows. The program holds the model's weights in plaintext:
    keep it as you keep the model. Clients get the bundle, which holds none.
    """
    import numpy as np

    from palladion.private.homomorphic.compile import compile_program

    bundle_path = out.with_name(out.name + BUNDLE_SUFFIX)
    for path in (out, bundle_path):
        if path.exists():
            raise FormatError(f"{path} exists already, and nothing is overwritten", "name a new file with --out")
    typical = read_rows(rows)
    places = None if labels is None else read_array(labels).astype(np.int64).ravel()
    if places is not None and len(places) != len(typical):
        raise FormatError(f"{labels} has {len(places)} labels for {len(typical)} rows")
    with progress(f"compile {model.name}") as bar:
        compiled = compile_program(
            model,
            typical,
            labels=places,
            rows_at_once=rows_at_once,
            retrain=retrain,
            agreement_min=agreement,
            said=lambda stage: bar(0, 0, stage),
        )
    program = compiled.program.encode()
    with files.atomic_writer(out, replace=False) as stream:
        stream.write(program)
    with files.atomic_writer(bundle_path, replace=False, mode=0o644) as stream:
        stream.write(compiled.program.bundle.encode())
    _say_compiled(compiled, out, bundle_path, len(program), as_json=as_json)


def _say_compiled(compiled: "Compiled", out: Path, bundle_path: Path, size: int, *, as_json: bool) -> None:
    from palladion.private.homomorphic.leakage import slots_carried

    bundle, found = compiled.program.bundle, compiled.leakage
    parameters, header = bundle.parameters, bundle.header
    if as_json:
        print_json(
            {
                "program": str(out),
                "bundle": str(bundle_path),
                "id": bundle.id,
                "widths": list(header.widths),
                "degree": parameters.degree,
                "prime_bits": list(parameters.prime_bits),
                "rows_per_ciphertext": bundle.layout.rows,
                "agreement": compiled.agreement,
                "accuracy": None if compiled.accuracy is None else list(compiled.accuracy),
                "polynomial_error": compiled.polynomial_error,
                "encrypted_error": compiled.max_error,
                "tested": compiled.tested,
                "keys_bytes": bundle.keys_bytes,
                "ciphertext_bytes": parameters.ciphertext_bytes,
                "dropped": list(header.dropped),
                "unknowns": found.unknowns,
                "slots_per_ciphertext": slots_carried(bundle, 1, by_columns=False),
                "monomials": found.monomials,
                "linear": found.linear,
            }
        )
        return
    accuracy = None
    if compiled.accuracy is not None:
        accuracy = f"{compiled.accuracy[0]:.2%} of the model, {compiled.accuracy[1]:.2%} of the program"
    primes = "+".join(map(str, parameters.prime_bits))
    echo(f"compiled {out}: a network of {'-'.join(map(str, header.widths))}")
    print_fields(
        [
            ("program", f"{out} ({size_text(size)}), holds the weights: keep it as you keep the model"),
            ("bundle", f"{bundle_path}, for clients"),
            ("parameters", f"degree {parameters.degree}, primes of {primes} bits: 128-bit security"),
            ("ciphertext", f"{size_text(parameters.ciphertext_bytes)} for up to {bundle.layout.rows} rows"),
            ("keys", f"{size_text(bundle.keys_bytes)}, sent once by each client"),
            ("decides", f"as the model on {compiled.agreement:.2%} of the rows"),
            ("accuracy", accuracy),
            ("outputs", f"off by at most {compiled.polynomial_error:.2g} from the model's, by the polynomials"),
            (
                "encryption",
                f"adds at most {compiled.max_error:.1e}, over {compiled.tested} rows; decides the same on all",
            ),
            ("left to clients", ", ".join(header.dropped) or None),
            (
                "recovered by",
                f"{found.unknowns} slots; a ciphertext counts for {slots_carried(bundle, 1, by_columns=False)}",
            ),
        ]
    )
    for sentence in found.sentences():
        warn(sentence)


@click.command("bundle", epilog="Example: palladion private bundle fraud.he.bundle")
@click.argument("path", type=FILE)
@json_option
def bundle(path: Path, as_json: bool) -> None:
    """Show what a bundle, or a program, says of itself."""
    found = _read_bundle(path)
    header = found.header
    fields: dict[str, Any] = {
        "id": found.id,
        "features": found.features,
        "outputs": found.outputs,
        "labels": list(header.labels),
        "left_to_clients": list(header.dropped),
        "degree": found.parameters.degree,
        "prime_bits": list(found.parameters.prime_bits),
        "rows_per_ciphertext": found.layout.rows,
        "encrypted_error": header.max_error,
        "agreement": header.agreement,
    }
    if as_json:
        print_json(fields)
        return
    shown = {name: ", ".join(map(str, value)) if isinstance(value, list) else value for name, value in fields.items()}
    print_fields([(name.replace("_", " "), value) for name, value in shown.items()])


@click.command("key", epilog="Example: palladion private key --bundle fraud.he.bundle --out fraud.key")
@bundle_option
@click.option("--out", type=NEW_FILE, required=True, help="The new file, which only its owner may read.")
@click.option("--encrypted", is_flag=True, help="Encrypt it to a passphrase, which is asked or in --passphrase-file.")
@passphrase_option
@json_option
def key(bundle_path: Path, out: Path, encrypted: bool, passphrase_file: Path | None, as_json: bool) -> None:
    """Make a client's secret key for a program. Whoever has it reads all of the client's queries and answers."""
    from palladion.private.homomorphic.client import HEClient
    from palladion.private.homomorphic.key_file import write_key

    made = HEClient(_read_bundle(bundle_path))
    recipient = None
    if encrypted or passphrase_file is not None:
        recipient = passphrase_recipient(read_passphrase(passphrase_file, new=True), PassphrasePolicy())
    write_key(out, made.secret_bytes(), made.bundle.id, recipient)
    if as_json:
        print_json({"key": str(out), "program": made.bundle.id, "encrypted": recipient is not None})
        return
    echo(f"wrote {out}, the only secret key: it never leaves this machine")
    print_fields([("program", made.bundle.id), ("encrypted", "to a passphrase" if recipient else "no")])


@click.command(
    "ask",
    epilog="Example: palladion private ask https://gate.example.com/v1/encrypted/fraud rows.npy "
    "--bundle fraud.he.bundle --secret fraud.key --api-key-file api.key",
)
@click.argument("url")
@rows_argument
@bundle_option
@secret_option
@click.option("--api-key-file", type=FILE, required=True, help="File with the API key.")
@click.option("--out", type=NEW_FILE, help="Write the answers to a new .npy file.")
@click.option("--outside", type=click.Choice(["refuse", "allow"]), default="refuse", show_default=True,
              help="Rows outside of the ranges that the program was tested on.")  # fmt: skip
@click.option("--by-columns/--by-rows", default=None, help="How rows are packed; without it, as costs fewer slots.")
@passphrase_option
@json_option
def ask(
    url: str,
    rows: Path,
    bundle_path: Path,
    secret_path: Path,
    api_key_file: Path,
    out: Path | None,
    outside: Any,
    by_columns: bool | None,
    passphrase_file: Path | None,
    as_json: bool,
) -> None:
    """Ask a gate about ROWS (.npy) under encryption, and decrypt its answers here.

    Evaluation keys are sent when the gate has none. Never send what was decrypted back to whoever serves the program:
    it can give your secret key away (docs/homomorphic.md).
    """
    import io

    import numpy as np

    from palladion.private.homomorphic.ask import GateClient

    if out is not None and out.exists():
        raise FormatError(f"{out} exists already, and nothing is overwritten", "name a new file with --out")
    client = _client(_read_bundle(bundle_path), secret_path, passphrase_file)
    api_key = files.read_limited(api_key_file, size_max=KEY_BYTES_MAX, what="the API key")
    try:
        text = api_key.decode("ascii").strip()
    except UnicodeDecodeError:
        raise KeysError(f"{api_key_file} holds no API key") from None
    asked = read_rows(rows)
    client.check(asked)
    answers = GateClient(url, text).ask(client, asked, outside=outside, by_columns=by_columns)
    labels = client.label(answers)
    if out is not None:
        buffer = io.BytesIO()
        np.save(buffer, answers)
        with files.atomic_writer(out, replace=False) as stream:
            stream.write(buffer.getvalue())
    if as_json:
        print_json({"answers": answers.tolist(), "labels": labels or None, "out": None if out is None else str(out)})
        return
    echo(f"{len(answers)} answers{f', written to {out}' if out is not None else ''}")
    shown = [
        [str(place), labels[place] if labels else "", " ".join(f"{number:.4g}" for number in row)]
        for place, row in enumerate(answers[:SHOWN_MAX])
    ]
    print_table(["row", "label", "outputs"], shown)
    if len(answers) > SHOWN_MAX:
        echo(f"and {len(answers) - SHOWN_MAX} more: --out FILE or --json has all")


def read_array(path: Path) -> "NDArray[Any]":
    """The array of a .npy file. Raises FormatError; runs no code of the file."""
    import io

    import numpy as np

    data = files.read_limited(path, size_max=ROWS_BYTES_MAX, what="the array")
    try:
        found = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise FormatError(f"{path} holds no array: {error}", "save it with numpy.save") from None
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "fiub":
        raise FormatError(f"{path} holds something else than one array of numbers", "save it with numpy.save")
    return found


def read_rows(path: Path) -> "NDArray[Any]":
    """Rows (rows, features) of a .npy file. Raises FormatError."""
    import numpy as np

    found = read_array(path)
    if found.ndim != 2 or not found.size:
        raise FormatError(f"{path} has an array of shape {found.shape}, expected (rows, features)")
    return found.astype(np.float64)


def _read_bundle(path: Path) -> "Bundle":
    from palladion.private.homomorphic.program import (
        PROGRAM,
        PROGRAM_BYTES_MAX,
        parse_bundle,
        parse_program,
    )

    data = files.read_limited(path, size_max=PROGRAM_BYTES_MAX, what="the bundle")
    return parse_program(data).bundle if data.startswith(PROGRAM) else parse_bundle(data)


def _client(found: "Bundle", path: Path, passphrase_file: Path | None) -> "HEClient":
    from palladion.private.homomorphic.client import HEClient
    from palladion.private.homomorphic.key_file import FILE_BYTES_MAX, is_encrypted, parse_key
    from palladion.seal.recipients import PassphraseIdentity
    from palladion.seal.recipients.identity_file import read_private_file

    hint = f"chmod 600 {path}, and make a new key if somebody else has read it"
    data = read_private_file(path, size_max=FILE_BYTES_MAX, what="secret key", hint=hint)
    identities = [PassphraseIdentity(read_passphrase(passphrase_file))] if is_encrypted(data) else []
    return HEClient(found, parse_key(data, found.id, identities))
