"""Makes the feed that ships: signatures of what our own attacks ask, one for each family of harvests.

`python -m tools.query_signatures` writes it again. The rows come from public digits (scikit-learn's, 8 × 8) and fixed
seeds, so that whoever runs the same attack as published is known by its first queries. Another seed is another set: a
signature finds what is repeated, and nothing else.
"""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from palladion.intel.bundle import NAMESPACE
from palladion.intel.formats import EXTENSION
from palladion.intel.sketch import NAME, Sketch, row_element, sketch_of
from palladion.redteam.harvests import HARVESTS, harvest
from palladion.redteam.pool import Pool

FEED = Path(__file__).resolve().parents[1] / "src" / "palladion" / "intel" / "harvests.json"
ROWS = 1000  # of a harvest: as many as teach a copy of such a model 95 % of its answers
SEED = 20260601
FIXED = "2026-01-01T00:00:00.000Z"
# Rows of the pool itself, which honest clients ask as well: a client that sent the digits was 0.52 like "active".
HONEST = frozenset({"in-distribution", "active"})


def main() -> None:
    """Write the feed."""
    FEED.write_bytes(feed(digits()))


def digits() -> Pool:
    """The public digits as a pool."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return Pool(bunch.data.astype(np.float32), bunch.target.astype(np.int64), image=(8, 8))


def signatures(pool: Pool, *, seed: int = SEED, rows: int = ROWS) -> Iterator[tuple[str, Sketch]]:
    """The signature of each family of harvests that no honest client asks."""
    for number, family in enumerate(HARVESTS):
        if family not in HONEST:
            asked = harvest(family, pool, rows, None, np.random.default_rng([seed, number]))
            yield family, sketch_of(row_element(row) for row in asked)


def feed(pool: Pool) -> bytes:
    """The feed's bytes: a STIX 2.1 bundle, the same each time."""
    author = _object("identity", "palladion") | {"name": "Palladion", "identity_class": "system"}
    indicators = [_indicator(family, sketch, author["id"]) for family, sketch in signatures(pool)]
    document = {"type": "bundle", "id": _id("bundle", "harvests"), "objects": [author, *indicators]}
    return msgspec.json.format(msgspec.json.encode(document, order="sorted"), indent=1) + b"\n"


def _indicator(family: str, sketch: Sketch, author: str) -> dict[str, Any]:
    signature = {
        "extension_type": "property-extension",
        "algorithm": NAME,
        "sketch": sketch.text(),
        "size": sketch.size,
    }
    return _object("indicator", f"harvest {family}") | {
        "created_by_ref": author,
        "name": f"Harvest: {family}",
        "description": HARVESTS[family].sentence,
        "indicator_types": ["malicious-activity"],
        "pattern": f"{NAME}:{sketch.text()}",
        "pattern_type": f"palladion-{NAME}",
        "valid_from": FIXED,
        "confidence": 80,
        "extensions": {EXTENSION: signature},
    }


def _object(kind: str, seed: str) -> dict[str, Any]:
    return {"type": kind, "spec_version": "2.1", "id": _id(kind, seed), "created": FIXED, "modified": FIXED}


def _id(kind: str, seed: str) -> str:
    return f"{kind}--{uuid.uuid5(NAMESPACE, f'{kind} {seed}')}"


if __name__ == "__main__":
    main()
