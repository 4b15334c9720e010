"""`palladion inspect`: what a file says about itself, without a key."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from palladion.cli.output import echo, json_option, print_fields, print_json, print_table, size_text
from palladion.errors import FormatError

if TYPE_CHECKING:
    from palladion.model.model import Model
    from palladion.seal.structure import SealedInfo


@click.command(epilog="Example: palladion inspect .palladion/sealed/fraud/1.sealed")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--tensors", is_flag=True, help="List the tensors of a plaintext model, each with its digest.")
@json_option
def inspect(file: Path, tensors: bool, as_json: bool) -> None:
    """Show what FILE, sealed or a plaintext model, says about itself. Needs no key.

    For a sealed file these are claims until `palladion verify` has checked the signature.
    """
    from palladion.model.read import read_file, sniff
    from palladion.seal.reader import inspect_file

    if not file.is_file():
        # opening a named pipe would wait for whoever writes to it
        raise FormatError(f"{file} is not a regular file")
    with file.open("rb") as stream:
        start = stream.read(64)
    if sniff(start) == "sealed":
        _show_sealed(file, inspect_file(file), as_json)
    else:
        _show_model(file, read_file(file), tensors, as_json)


def _show_sealed(file: Path, info: "SealedInfo", as_json: bool) -> None:
    header = info.header
    wraps = [{"kind": wrap.kind, "key_id": wrap.key_id} for wrap in info.wraps]
    if as_json:
        print_json(
            {
                "file": str(file),
                "sealed": True,
                "model": header.model,
                "version": header.version,
                "kind": header.kind,
                "purpose": header.purpose,
                "content": header.content,
                "created": header.created,
                "publisher": header.publisher,
                "previous": header.previous,
                "recipient": header.recipient,
                "base": header.base or None,
                "license_required": header.license == "required",
                "wraps": wraps,
                "payload_bytes": info.payload_bytes,
                "segments": info.segments,
                "root": info.root,
                "header_digest": info.header_digest,
            }
        )
        return
    echo(f"{file}: sealed file, its signature not checked here")
    name = f"{header.model} version {header.version}, {header.purpose}" if header.model else header.purpose
    print_fields(
        [
            ("holds", f"{name} ({header.kind}), {size_text(info.payload_bytes)} in {info.segments} segments"),
            ("content", header.content or None),
            ("created", header.created),
            ("publisher", header.publisher),
            ("follows", header.previous or None),
            ("recipient", header.recipient or None),
            ("base", header.base or None),
            ("licence", "required: palladion license" if header.license else None),
            ("opens for", ", ".join(f"{wrap['kind']} {wrap['key_id']}" for wrap in wraps)),
        ]
    )


def _show_model(file: Path, model: "Model", tensors: bool, as_json: bool) -> None:
    from palladion.model.digest import graph_digest, listing_digest, tensor_digest

    digests = {name: tensor_digest(tensor) for name, tensor in model.tensors.items()}
    graph = graph_digest(model.graph) if model.graph is not None else None
    content = listing_digest(digests, graph).hex()
    document: dict[str, Any] = {
        "file": str(file),
        "sealed": False,
        "format": model.format,
        "content": content,
        "graph": graph.hex() if graph else None,
        "parameters": model.parameter_count,
        "bytes": model.byte_count,
        "tensors": [
            {"name": name, "dtype": item.dtype.name, "shape": list(item.shape), "digest": digests[name].hex()}
            for name, item in model.tensors.items()
        ],
    }
    if as_json:
        print_json(document)
        return
    echo(f"{file}: {model.format}, in plaintext")
    print_fields(
        [
            (
                "holds",
                f"{len(model.tensors)} tensors, {model.parameter_count:,} numbers, {size_text(model.byte_count)}",
            ),
            ("content", content),
            ("graph", document["graph"]),
        ]
    )
    if tensors:
        rows = [
            (t["name"], t["dtype"], "×".join(map(str, t["shape"])) or "scalar", t["digest"])
            for t in document["tensors"]
        ]
        print_table(("tensor", "type", "shape", "sha-256"), rows)
