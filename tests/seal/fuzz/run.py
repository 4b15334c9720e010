"""Runs a fuzz target of this folder under atheris (libFuzzer): coverage-guided, from the committed corpus.

A target takes bytes and raises only where there is a fault: a refusal of our error tree is what a reader is for.
"""

import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any

CORPUS = Path(__file__).parent / "corpus"
MEMORY_MIB_MAX = 1024  # of the whole process; a reader that allocates what a file claims soon needs more
SECONDS_MAX = 20  # for one input

Target = Callable[[bytes], None]


def instrumented(name: str) -> AbstractContextManager[Any]:
    """See which branches are taken in what is imported in the block, if the module called `name` is run as a script."""
    if name != "__main__":
        return nullcontext()
    manager: AbstractContextManager[Any] = import_module("atheris").instrument_imports(include=["palladion"])
    return manager


def fuzz(target: Target, corpus: str) -> None:
    """Fuzz until libFuzzer's options, which are those of the command line, say that it is enough.

    What is found on the way goes to the folders that are named there, or is dropped; the committed corpus is only read.
    """
    atheris = import_module("atheris")
    with tempfile.TemporaryDirectory() as scratch:
        options = [f"-rss_limit_mb={MEMORY_MIB_MAX}", f"-timeout={SECONDS_MAX}", f"-artifact_prefix={scratch}/"]
        given = sys.argv[1:]
        folders = [] if any(not argument.startswith("-") for argument in given) else [scratch]
        atheris.Setup([sys.argv[0], *options, *given, *folders, str(CORPUS / corpus)], target)
        atheris.Fuzz()


def replay(target: Target, corpus: str) -> int:
    """Give a target everything in the committed corpus, without atheris; how much that is."""
    paths = sorted((CORPUS / corpus).iterdir())
    for path in paths:
        target(path.read_bytes())
    return len(paths)
