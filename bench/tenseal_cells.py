"""TenSEAL's own encrypted vectors on the networks of bench.homomorphic, in an environment of its own: FOLDER of `.npz`.

Each file holds weights and biases of the layers, squares between them, and rows. Prints JSON: for each file the seconds
of CPU of every repeat for one row, and the largest error. Imports nothing of Palladion. Biases are added encrypted:
added in the clear before a product they give wrong answers (TenSEAL issue 462).
"""

import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

PARAMETERS = {1: (4096, [40, 28, 40], 28), 2: (8192, [44, 30, 30, 30, 44], 30)}  # by layers; degree, primes, scale
REPEATS = 7


def main(folder: Path) -> dict[str, dict[str, Any]]:
    """What was measured, by the names of the files."""
    tenseal = importlib.import_module("tenseal")
    found = {}
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as held:
            arrays = {name: held[name] for name in held.files}
        count = sum(name.startswith("weights") for name in arrays)
        degree, primes, scale = PARAMETERS[count]
        context = tenseal.context(tenseal.SCHEME_TYPE.CKKS, degree, coeff_mod_bit_sizes=primes)
        context.global_scale = 2**scale
        context.generate_galois_keys()
        layers = [(arrays[f"weights{i}"].T.tolist(), arrays[f"bias{i}"].tolist()) for i in range(count)]
        biases = [tenseal.ckks_vector(context, bias) for _, bias in layers]
        seconds, error = [], 0.0
        for row, wanted in zip(arrays["rows"][:REPEATS], arrays["wanted"], strict=False):
            value = tenseal.ckks_vector(context, row.tolist())
            begun = time.process_time()
            for index, (weights, _) in enumerate(layers):
                if index:
                    value.square_()
                value = value.mm(weights) + biases[index]
            seconds.append(time.process_time() - begun)
            error = max(error, float(np.abs(np.array(value.decrypt()) - wanted).max()))
        found[path.stem] = {"seconds": seconds, "error": error}
    return found


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
