"""All that a scan has to find something in."""

from tests.scan.corpus.bypasses import bypasses
from tests.scan.corpus.containers import containers
from tests.scan.corpus.gadgets import gadgets
from tests.scan.corpus.hidden import hidden
from tests.scan.corpus.kept import kept
from tests.scan.corpus.models import models
from tests.scan.corpus.pickles import pickles
from tests.scan.corpus.sample import Sample


def malicious() -> list[Sample]:
    """Every malicious, broken or odd file of the corpus."""
    return [*gadgets(), *pickles(), *containers(), *models(), *bypasses(), *hidden(), *kept()]
