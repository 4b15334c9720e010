"""A house whose gate answers encrypted queries."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from palladion.files import write_atomically
from palladion.private.homomorphic.program import Program
from tests.gate.gates import House

MODEL = "scores"
PATH = f"/v1/encrypted/{MODEL}"
FILE = "scores.he"


def place(house: House, made: Program, *, mode: int = 0o600, **settings: Any) -> Path:
    """Write a program beside the policy, and name it there."""
    home = house.installation.paths.home
    write_atomically(home / FILE, made.encode(), mode=mode)
    text = house.installation.paths.policy.read_text()
    house.installation.paths.policy.write_text(text + _table({"model": MODEL, "program": FILE, **settings}))
    return home / FILE


def _table(settings: Mapping[str, Any]) -> str:
    lines = [f"{name} = {msgspec.json.encode(value).decode()}" for name, value in settings.items()]
    return "\n".join(["\n[[encrypted]]", *lines, ""])
