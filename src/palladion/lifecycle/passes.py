"""A model that tells how far reading through it has come, so that what reads it need not know of progress."""

from collections.abc import Callable, Iterator, Mapping, ValuesView
from dataclasses import replace

from palladion.lifecycle.reading import Progress
from palladion.model.model import Model
from palladion.model.tensors import Tensor


def watched(model: Model, progress: Progress, *, during: str, between: str) -> Model:
    """The same model; whoever goes through its tensors' values is followed.

    `progress` gets the stage `during` with the bytes that are done, and after each pass the stage `between` with a
    total of 0: what comes then takes as long as it takes.
    """
    total = sum(tensor.byte_count for tensor in model.tensors.values())
    tensors = _Watched(model.tensors, lambda done: progress(during, done, total), lambda: progress(between, 0, 0))
    return replace(model, tensors=tensors)


class _Watched(Mapping[str, Tensor]):
    def __init__(self, tensors: Mapping[str, Tensor], tell: Callable[[int], None], finish: Callable[[], None]) -> None:
        self._tensors = tensors
        self._tell = tell
        self._finish = finish

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def values(self) -> ValuesView[Tensor]:
        return _Values(self, self._tell, self._finish)


class _Values(ValuesView[Tensor]):
    def __init__(self, tensors: _Watched, tell: Callable[[int], None], finish: Callable[[], None]) -> None:
        super().__init__(tensors)
        self._tensors = tensors
        self._tell = tell
        self._finish = finish

    def __iter__(self) -> Iterator[Tensor]:
        done = 0
        try:
            for name in self._tensors:
                tensor = self._tensors[name]
                self._tell(done)
                yield tensor
                done += tensor.byte_count
        finally:  # also of who looked for one tensor, and goes on without the others
            self._finish()
