"""A report as PDF/A-3b, by typst, with `report.json` attached. Nothing of it becomes code: it is shown as text."""

import json
from importlib import resources
from types import ModuleType
from typing import Any

from palladion.clock import parse_timestamp
from palladion.errors import FormatError, MissingExtraError

INSTALL = 'install it with: pip install "palladion[dossier]"'
STANDARD = "a-3b"
# PDF/A allows no character without a glyph, and names of models and words of services may have any
_SHOWN = frozenset(map(chr, range(0x20, 0x7F))) | {"–", "…", "·"}


def to_pdf(report: bytes) -> bytes:
    """The PDF of a `report.json`. Raises MissingExtraError without typst, FormatError if it cannot be set."""
    try:
        import typst
    except ImportError:
        raise MissingExtraError("the pages of a report need typst", INSTALL) from None
    library: ModuleType = typst
    document = json.loads(report)
    made = parse_timestamp(document["times"]["started"]).replace(microsecond=0)
    template = (resources.files(__package__) / "report.typ").read_bytes()
    inputs = {"document": report.decode(), "shown": json.dumps(_showable(document))}
    compiler = library.Compiler(template, ignore_system_fonts=True, sys_inputs=inputs)
    try:
        return bytes(compiler.compile(timestamp=made, format="pdf", pdf_standards=STANDARD))
    except library.TypstError as error:
        raise FormatError(f"the report cannot be set: {error}") from None


def _showable(value: Any) -> Any:
    """The values that are shown, with what no font has escaped; curves stay in the attachment."""
    if isinstance(value, str):
        return "".join(letter if letter in _SHOWN else f"\\u{{{ord(letter):x}}}" for letter in value)
    if isinstance(value, dict):
        return {_showable(name): _showable(item) for name, item in value.items() if name != "details"}
    return [_showable(item) for item in value] if isinstance(value, list) else value
