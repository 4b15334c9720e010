"""The prompts that simulated talkers draw from, by task; recombined where more are asked than there are."""

import gzip
import json
import re
import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from palladion import files
from palladion.errors import FormatError

PROMPTS_MAX = 1_000_000
FILE_BYTES_MAX = 1 << 30  # decompressed
TASK_PROMPTS_MIN = 4  # fewer cannot be halved into prompts that differ
_GZIP = b"\x1f\x8b"
_PIECE = re.compile(r"(?<=[.!?\n])\s+")  # what follows a sentence or a line


@dataclass(frozen=True, eq=False)
class Prompts:
    """Texts of each task. Raises ValueError without a task, or for a task with fewer than `TASK_PROMPTS_MIN` // 2."""

    tasks: Mapping[str, Sequence[str]]

    def __post_init__(self) -> None:
        short = [task for task, texts in self.tasks.items() if len(texts) < TASK_PROMPTS_MIN // 2]
        if not self.tasks or short:
            raise ValueError(f"every task needs {TASK_PROMPTS_MIN // 2} prompts; too few: {', '.join(short) or 'all'}")

    @cached_property
    def names(self) -> list[str]:
        """The tasks in the order in which talkers number them."""
        return sorted(self.tasks)

    @cached_property
    def sources(self) -> list[list[int]]:
        """Tasks, by number, over one source: those of which the names begin with the same word."""
        found: defaultdict[str, list[int]] = defaultdict(list)
        for number, name in enumerate(self.names):
            found[name.partition("_")[0]].append(number)
        return list(found.values())

    def halves(self) -> tuple["Prompts", "Prompts"]:
        """Every other prompt of each task, and the rest: two parties who hold different texts of the same tasks."""
        return (
            Prompts({task: texts[0::2] for task, texts in self.tasks.items()}),
            Prompts({task: texts[1::2] for task, texts in self.tasks.items()}),
        )

    def only(self, tasks: Sequence[str]) -> "Prompts":
        """Some of the tasks."""
        return Prompts({task: self.tasks[task] for task in tasks})

    def split(self, generator: np.random.Generator) -> tuple["Prompts", "Prompts"]:
        """Two halves of the sources: no text, template or subject is in both."""
        order = [self.sources[place] for place in generator.permutation(len(self.sources)).tolist()]
        first = [self.names[task] for source in order[: (len(order) + 1) // 2] for task in source]
        return self.only(first), self.only([name for name in self.names if name not in set(first)])

    def recombined(self, task: int, generator: np.random.Generator) -> str:
        """A prompt of a task in which one piece, a sentence or a line, comes from another prompt of the same task."""
        texts = self._pieces[task]
        one, other = (texts[place] for place in generator.integers(0, len(texts), 2).tolist())
        place = int(generator.integers(0, len(one)))
        return " ".join([*one[:place], other[min(place, len(other) - 1)], *one[place + 1 :]])

    @cached_property
    def _pieces(self) -> list[list[list[str]]]:
        return [[_PIECE.split(text.strip()) for text in self.tasks[name]] for name in self.names]


class Deck:
    """Draws prompts of a task for one client: none twice before all were drawn, recombined ones after that."""

    def __init__(self, prompts: Prompts, generator: np.random.Generator) -> None:
        self._prompts = prompts
        self._generator = generator
        self._left: dict[int, list[int]] = {}

    def draw(self, task: int) -> str:
        """One more prompt of a task, by number."""
        texts = self._prompts.tasks[self._prompts.names[task]]
        left = self._left.get(task)
        if left is None:
            left = self._left[task] = self._generator.permutation(len(texts)).tolist()
        return texts[left.pop()] if left else self._prompts.recombined(task, self._generator)


def read_prompts(path: Path) -> Prompts:
    """Prompts of a file of JSON lines, gzipped or not, with `task` and `prompt`; tasks with too few are left out.

    Raises FormatError on anything else.
    """
    tasks: defaultdict[str, list[str]] = defaultdict(list)
    with files.storage_errors(path), path.open("rb") as plain:
        packed = plain.read(len(_GZIP)) == _GZIP
    with files.storage_errors(path), gzip.open(path, "rb") if packed else path.open("rb") as stream:
        try:
            data = stream.read(FILE_BYTES_MAX + 1)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise FormatError(f"{path} is not a gzipped file of prompts: {error}") from None
    lines = data.splitlines()
    if len(data) > FILE_BYTES_MAX or len(lines) > PROMPTS_MAX:
        raise FormatError(f"{path} has more than {PROMPTS_MAX} prompts or {FILE_BYTES_MAX} bytes")
    for number, line in enumerate(lines, 1):
        try:
            item = json.loads(line)
            task, prompt = item["task"], item["prompt"]
        except (ValueError, KeyError, TypeError):
            raise FormatError(f"{path}, line {number}: expected an object with task and prompt") from None
        if not isinstance(task, str) or not isinstance(prompt, str):
            raise FormatError(f"{path}, line {number}: task and prompt are texts")
        tasks[task].append(prompt)
    kept = {task: texts for task, texts in tasks.items() if len(texts) >= TASK_PROMPTS_MIN}
    if not kept:
        raise FormatError(f"{path} has no task with {TASK_PROMPTS_MIN} prompts")
    return Prompts(kept)
