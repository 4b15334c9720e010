"""What is left of what is served when the key of one file must not be used any more. Pure."""

from collections.abc import Mapping
from dataclasses import replace

from palladion.gate.protocols.protocol import ErrorForm
from palladion.gate.readiness import Waiting
from palladion.gate.served import Served


def without_file(served: Mapping[str, Served], file_id: str) -> tuple[dict[str, Served], dict[str, Waiting]]:
    """The routes that go on, and those that answer that they are not ready (503); a lost version on trial just ends."""
    left: dict[str, Served] = {}
    waiting: dict[str, Waiting] = {}
    for name, item in served.items():
        if _is_of(item, file_id):
            errors = item.protocol if isinstance(item.protocol, ErrorForm) else None
            waiting[name] = Waiting(item.route, item.protocol.paths, errors)
        elif item.on_trial is not None and _is_of(item.on_trial.served, file_id):
            left[name] = replace(item, on_trial=None)
        else:
            left[name] = item
    return left, waiting


def _is_of(item: Served, file_id: str) -> bool:
    return item.sealed is not None and item.sealed.header.file_id == file_id
