"""Keras models as Keras writes them, made without it: configurations, archives and HDF5 files."""

import io
import json
import zipfile
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np


def keras_config(layers: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """The configuration of a small Keras 3 model; its layers may be others."""
    dense = {
        "module": "keras.layers", "class_name": "Dense", "registered_name": None,
        "config": {
            "name": "dense", "units": 2, "activation": "softmax",
            "kernel_initializer": {
                "module": "keras.initializers", "class_name": "GlorotUniform", "config": {"seed": None},
                "registered_name": None,
            },
        },
    }  # fmt: skip
    first = {
        "module": "keras.layers",
        "class_name": "InputLayer",
        "config": {"batch_shape": [None, 4]},
        "registered_name": None,
    }
    return {
        "module": "keras", "class_name": "Sequential", "registered_name": None,
        "config": {"name": "sequential", "layers": [first, *(layers if layers is not None else [dense])]},
        "compile_config": {
            "optimizer": {
                "module": "keras.optimizers", "class_name": "Adam", "config": {"learning_rate": 0.1},
                "registered_name": None,
            },
            "loss": "mse",
        },
    }  # fmt: skip


def keras_archive(config: dict[str, Any], **others: bytes) -> bytes:
    """A `.keras` file of a configuration, with an empty HDF5 file of weights where h5py is there."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.9.0", "date_saved": "2026-01-01@00:00:00"}))
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("model.weights.h5", hdf5_bytes())
        for name, data in others.items():
            archive.writestr(name.replace("__", "."), data)
    return buffer.getvalue()


def hdf5_bytes(config: dict[str, Any] | str | None = None, change: Any = None) -> bytes:
    """An HDF5 file of weights, with a model's configuration as Keras 2 keeps it; `change` gets the open file."""
    h5py: Any = import_module("h5py")

    with TemporaryDirectory() as folder:
        path = Path(folder, "m.h5")
        with h5py.File(path, "w") as file:
            file.create_dataset("model_weights/dense/kernel", data=np.ones((4, 2), np.float32))
            file["model_weights"].attrs["layer_names"] = [b"dense"]
            if config is not None:
                file.attrs["model_config"] = config if isinstance(config, str) else json.dumps(config)
                file.attrs["keras_version"] = "2.15.0"
            if change is not None:
                change(file)
        return path.read_bytes()
