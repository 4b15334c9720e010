"""Documents for Kubernetes as text, and names that it takes. What stands in them is others' business."""

import json
import re
from hashlib import sha256
from typing import Any

Document = dict[str, Any]

JOB_CHARACTERS_MAX = 52  # of a CronJob: its jobs get 11 more, and a label has 63 (Kubernetes, CronJob limitations)
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", re.ASCII)
_DIGEST_CHARACTERS = 8


def job_name(prefix: str, name: str) -> str:
    """What a CronJob for `name` is called: a lower-case DNS label, and another one for each name.

    `prefix` is such a label, and short. A name that is none, or is too long, is cut, and a part of its digest follows.
    """
    whole = f"{prefix}-{name}"
    if len(whole) <= JOB_CHARACTERS_MAX and _LABEL.fullmatch(whole):
        return whole
    kept = re.sub(r"[^a-z0-9]+", "-", whole.lower())[: JOB_CHARACTERS_MAX - _DIGEST_CHARACTERS - 1].strip("-")
    return f"{kept}-{sha256(name.encode()).hexdigest()[:_DIGEST_CHARACTERS]}"


def yaml(value: Any, depth: int = 0) -> str:
    """A document in YAML: block style, and every text in JSON's quotes, so that none is taken for anything else."""
    space = "  " * depth
    if isinstance(value, dict) and value:
        return "".join(f"{space}{key}:{_below(item, depth)}" for key, item in value.items())
    if isinstance(value, list) and value:
        # what stands in a list is one step further in, and its first line has the dash
        parts = (yaml(item, depth + 1) for item in value)
        return "".join(f"{space}- {part[len(space) + 2 :]}" for part in parts)
    return f"{space}{_scalar(value)}\n"


def _scalar(value: Any) -> str:
    if not isinstance(value, str):
        return json.dumps(value)
    # beyond 16 bits JSON writes two halves, which YAML does not put together
    return f'"{"".join(json.dumps(c)[1:-1] if ord(c) < 0x10000 else f"{chr(92)}U{ord(c):08X}" for c in value)}"'


def _below(value: Any, depth: int) -> str:
    if isinstance(value, dict | list) and value:
        return "\n" + yaml(value, depth + 1)
    return f" {_scalar(value)}\n"
