"""Fuzzes paths of the policy: `python -m tests.gate.hostile.fuzz.fuzz_path -max_total_time=60`.

Lines of an input are paths of a document; what is written by them is read by them again.
"""

from pathlib import Path

from tests.seal.fuzz.run import fuzz, instrumented

with instrumented(__name__):
    from palladion.gate.protocols.json_tree import SEGMENTS_MAX, Tree, parse_path

CORPUS = Path(__file__).parent / "corpus" / "path"
PATHS_MAX = 32
ROWS = 2


def one_input(data: bytes) -> None:
    """Paths are refused, or lead to places that differ."""
    paths = data.decode("latin-1").split("\n")[:PATHS_MAX]
    try:
        for path in paths:
            assert len(parse_path(path)) <= SEGMENTS_MAX
        tree = Tree(paths, whole=True)
    except ValueError:
        return
    rows = ROWS if tree.has_rows[0] else 1
    values = [[f"{number}.{row}" for row in range(rows)] for number in range(len(paths))]
    document = tree.write(values)
    assert tree.read(document, rows_max=ROWS) == values
    assert Tree(paths, whole=False).read(document, rows_max=ROWS) == values


if __name__ == "__main__":
    fuzz(one_input, str(CORPUS))
