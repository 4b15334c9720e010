"""A process that is killed at its n-th rename: nothing that it would still do or clean up happens."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

RENAMES = ((os, "link"), (Path, "rename"), (Path, "replace"))
CLEANING = ((Path, "unlink"), (shutil, "rmtree"))


class Killed(BaseException):
    """The end of the process."""


def killed_at(step: int, work: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether `work` was killed before its rename number `step`; False if it ended well before."""
    done = 0

    def dying(original: Callable[..., Any], weight: int) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal done
            done += weight
            if done >= step:
                done = step
                raise Killed
            return original(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        for places, weight in ((RENAMES, 1), (CLEANING, 0)):
            for owner, name in places:
                patch.setattr(owner, name, dying(getattr(owner, name), weight))
        try:
            work()
        except Killed:
            return True
    return False
