"""A report as PDF/A-3b, by typst, with `report.json` attached. Nothing of it becomes code: it is shown as text."""

import json
from importlib import resources
from types import ModuleType

from palladion.clock import parse_timestamp
from palladion.errors import FormatError, MissingExtraError
from palladion.incident.dossier.render import showable

INSTALL = 'install it with: pip install "palladion[dossier]"'
STANDARD = "a-3b"


def to_pdf(report: bytes) -> bytes:
    """The PDF of a `report.json`. Raises MissingExtraError without typst, FormatError if it cannot be set."""
    try:
        import typst
    except ImportError:
        raise MissingExtraError("the pages of a report need typst", INSTALL) from None
    library: ModuleType = typst
    document = json.loads(report)
    for stage in document["stages"]:
        # curves stay in the attachment
        del stage["details"]
    made = parse_timestamp(document["times"]["started"]).replace(microsecond=0)
    template = (resources.files(__package__) / "report.typ").read_bytes()
    inputs = {"document": report.decode(), "shown": showable(json.dumps(document).encode())}
    compiler = library.Compiler(template, ignore_system_fonts=True, sys_inputs=inputs)
    try:
        return bytes(compiler.compile(timestamp=made, format="pdf", pdf_standards=STANDARD))
    except library.TypstError as error:
        raise FormatError(f"the report cannot be set: {error}") from None
