"""What the configuration of a Keras model makes its loader do: Lambda layers, named functions, files, foreign classes.

Keras 3 rebuilds a model from names in `config.json` (`keras.saving.deserialize_keras_object`), and Keras 2 from the
same in HDF5. Its `safe_mode` was passed more than once: CVE-2024-3660, CVE-2025-1550, CVE-2025-8747, CVE-2025-9905,
CVE-2025-9906, CVE-2025-12058, CVE-2025-49655. Here a name that is not Keras's own is refused.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from palladion.scan.keras_names import CLASSES, FUNCTIONS
from palladion.scan.look import Look
from palladion.scan.pickles.programs import CODE
from palladion.scan.source import Source

CONFIG_BYTES_MAX = 32 * 2**20
ITEMS_MAX = 2_000_000
DEPTH_MAX = 200  # models in models; Python's JSON reader gives up at about a thousand
_OWN = re.compile(
    r"(?:tf_keras|keras|keras_hub|keras_cv|keras_nlp|tensorflow\.keras|tensorflow\.python\.keras|builtins)(?:\.|$)"
)
# Of Keras itself what fetches, loads, writes or runs.
_FORBIDDEN_MODULES = re.compile(
    r"keras(?:\.src)?\.(?:utils(?!\.generic_utils)|config|saving|models|applications|datasets|wrappers|callbacks|"
    r"distribution|export|backend\.(?!Variable|torch\.optimizers\.torch_\w+)|trainers\.data_adapters|legacy\.saving)|"
    r"keras(?:\.src)?\.(?:layers\.)?.*torch_wrapper"
)
_FORBIDDEN = frozenset({
    "get_file", "load_model", "save_model", "load_weights", "load_img", "save_img", "run_script", "exec", "eval",
    "enable_unsafe_deserialization", "deserialize", "deserialize_keras_object", "import_module", "load_data",
    "model_from_json", "clone_model", "TorchModuleWrapper", "FlaxLayer", "JaxLayer", "TFSMLayer", "Pipeline",
    "pad_sequences", "audio_dataset_from_directory", "image_dataset_from_directory", "text_dataset_from_directory",
})  # fmt: skip
_CLASSES_OF_BUILTINS = frozenset(
    {"slice", "Ellipsis", "set", "tuple", "dict", "list", "bytes", "float", "int", "str", "bool"}
)
# Of TensorFlow, by the names that layers of single operators give them.
_FILE_OPERATORS = re.compile(
    r"\b(?:io\.\w*(?:file|dataset|graph)\w*|py_function|numpy_function|py_func|raw_ops|load_\w+|saved_model)\b|"
    r"PyFunc|ReadFile|WriteFile|MatchingFiles"
)
_PACKAGES = ("Keras>", "keras>", "Addons>", "keras_hub>", "keras_nlp>", "builtins>")  # in which Keras registers its own
_MODEL_MODULES = frozenset({f"keras{part}" for part in (
    ".models", ".src.models", ".src.models.functional", ".src.models.sequential", ".src.models.model",
)})  # fmt: skip
# Layers that read a vocabulary from a file whose name stands in the configuration.
_FILES = ("vocabulary", "idf_weights", "filepath", "file_path", "weights_path", "checkpoint")


def _compiled(item: dict[str, Any], look: Look, where: str) -> None:
    """Losses, metrics and activations that a model names, and that are not Keras's own."""
    waiting = [item.get(key) for key in ("loss", "metrics", "weighted_metrics", "activation", "recurrent_activation")]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting.extend(value)
        elif isinstance(value, dict) and "class_name" not in value:
            waiting.extend(value.values())
        elif isinstance(value, str) and value not in FUNCTIONS and value not in CLASSES:
            look.add("keras-code", where, f"{where} needs {value!r}, a function that is not Keras's", "suspicious")


def scan_archive_config(source: Source, look: Look, where: str) -> None:
    """Look at the `config.json` of a Keras archive."""
    if source.size > CONFIG_BYTES_MAX:
        look.add(
            "limit", where, f"{where} has {source.size} bytes, more than the {CONFIG_BYTES_MAX} of a configuration"
        )
        return
    try:
        document = json.loads(source.read(0, source.size), object_pairs_hook=_pairs)
    except (ValueError, RecursionError) as error:
        look.add("structure", where, f"{where} is no JSON that has one meaning: {str(error)[:80]}")
        return
    scan_config(document, look, where)


def _pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(items)
    if len(found) != len(items):
        raise ValueError("a key stands twice")
    return found


def scan_config(document: Any, look: Look, where: str) -> None:
    """Report every name in a model's configuration that is not Keras's own, or that runs or reads something."""
    for item in objects(document, look, where):
        _named(item, look, where)
        _compiled(item, look, where)
        for key in _FILES:
            value = item.get(key)
            if isinstance(value, str) and value:
                look.add("external-data", where, f"{where}: {key} makes the loader read {value!r}")


def objects(document: Any, look: Look, where: str) -> Iterator[dict[str, Any]]:
    """Every object of a JSON document."""
    stack = [(document, 0)]
    count = 0
    while stack:
        value, depth = stack.pop()
        count += 1
        if depth > DEPTH_MAX or count > ITEMS_MAX:
            look.add("limit", where, f"{where} has more, or deeper, values than a scan follows")
            return
        if isinstance(value, dict):
            yield value
            stack.extend((item, depth + 1) for item in value.values())
        elif isinstance(value, list):
            stack.extend((item, depth + 1) for item in value)


def _named(item: dict[str, Any], look: Look, where: str) -> None:
    name, module, config = item.get("class_name"), item.get("module"), item.get("config")
    if name is None and isinstance(module, str) and ("fn_name" in item or "function" in item):
        look.add("keras-code", where, f"{where} names a function of {module!r}")
    if not isinstance(name, str):
        return
    if (said := _running(name, module, config, item.get("registered_name"))) is not None:
        look.add("keras-code", where, f"{where} {said}")
    elif (foreign := _somebodys(name, item)) is not None:
        look.add("keras-code", where, f"{where} needs {foreign!r}, a class that is not Keras's", "suspicious")
    for value in config.values() if isinstance(config, dict) else ():
        if isinstance(value, str) and CODE.search(value):
            look.add("embedded-code", where, f"{where}: {name} holds program text that runs commands or code")


def _running(name: str, module: Any, config: Any, registered: Any) -> str | None:
    """What a class or function that the configuration names would run or load; None if it holds a model."""
    if name in {"Lambda", "__lambda__"}:
        return f"holds a {name} layer, whose code runs when it is loaded or used"
    if name in {"TFOpLambda", "TensorFlowOpLayer"} and _FILE_OPERATORS.search(str(config)):
        return f"holds a {name} layer that calls an operator which reaches files or Python"
    if name == "function" or (name == "__typespec__" and isinstance(config, str)):
        called = config if isinstance(config, str) else str(registered)
        return (
            None if isinstance(module, str) and _own(module, called) else f"names the function {called!r} of {module!r}"
        )
    if isinstance(module, str) and not _own(module, name):
        return f"names {module}.{name}, which is not a part of Keras that holds a model"
    return f"names {name}, which loads or runs something" if name in _FORBIDDEN else None


def _somebodys(name: str, item: dict[str, Any]) -> str | None:
    """The class of somebody's own that the configuration needs; None if all are Keras's."""
    registered, module = item.get("registered_name"), item.get("module")
    if isinstance(registered, str):
        if (">" in registered and not registered.startswith(_PACKAGES)) or (module is None and registered != name):
            return registered
    elif ">" in name and not name.startswith(_PACKAGES):
        return name
    elif module is None and "registered_name" not in item and isinstance(item.get("config"), dict):
        return None if name in CLASSES else name
    return None


def _own(module: str, name: str) -> bool:
    """Whether a class or function is one of Keras's that hold a model."""
    if not _OWN.match(module) or not all(part.isidentifier() for part in module.split(".")):
        return False
    if module == "builtins":
        return name in _CLASSES_OF_BUILTINS
    if name.rsplit(".", maxsplit=1)[-1] in _FORBIDDEN or "." in name:
        return False
    if _FORBIDDEN_MODULES.match(module):
        return module in _MODEL_MODULES and name in {"Functional", "Sequential", "Model"}
    return True
