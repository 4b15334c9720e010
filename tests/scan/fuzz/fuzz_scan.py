"""Fuzzes the scan of any file: `python -m tests.scan.fuzz.fuzz_scan -max_total_time=60`.

Whatever the bytes are, there is a verdict: no error comes out, findings stay few, and an unknown format has a finding.
"""

from tests.seal.fuzz.run import instrumented

with instrumented(__name__):
    from palladion.scan.content import examine
    from palladion.scan.look import FINDINGS_MAX, Look
    from palladion.scan.source import Held

OPCODES = 20_000  # so that one input takes no second
UNPACKED_BYTES = 2**22


def one_input(data: bytes) -> None:
    """Scan `data`."""
    look = Look(examine, unpacked_left=UNPACKED_BYTES, opcodes_left=OPCODES)
    kind = examine(look, Held(data), "it")
    assert len(look.findings) <= FINDINGS_MAX
    assert look.findings or kind not in {"unknown", "unreadable"}


def main() -> None:
    """Run under atheris, from the samples of tests/scan/corpus."""
    import sys
    import tempfile
    from importlib import import_module
    from pathlib import Path

    from tests.scan.corpus.models import models
    from tests.scan.corpus.pickles import pickles

    atheris = import_module("atheris")
    with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryDirectory() as seeds:
        for number, sample in enumerate([*pickles(), *models()]):
            if sample.data and len(sample.data) < 8192:
                Path(seeds, str(number)).write_bytes(sample.data)
        options = ["-rss_limit_mb=1024", "-timeout=20", f"-artifact_prefix={scratch}/"]
        atheris.Setup([sys.argv[0], *options, *sys.argv[1:], scratch, seeds], one_input)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
