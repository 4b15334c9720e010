"""Archives of torch.export (`.pt2`): a graph of named operators in JSON, weights as bare numbers, and compiled code.

Source: torch/export/pt2_archive. The loader looks up every `target` of the graph by its name, unpickles sample inputs
and whatever `use_pickle` says, and hands libraries of AOTInductor to the system.
"""

import json
import re
from typing import Any

from palladion.errors import FormatError
from palladion.scan.keras import objects
from palladion.scan.look import Look
from palladion.scan.pickles.strings import pickled
from palladion.scan.source import Source

MARK = "archive_format"
GRAPH_BYTES_MAX = 256 * 2**20
TARGETS_SAID_MAX = 20
_NUMBERS = re.compile(r"data/(?:weights/weight_\d+|constants/tensor_\d+)")
_OBJECT = re.compile(r"data/constants/(?:custom_obj|opaque_obj)_\d+")
_COMPILED = re.compile(r"data/aotinductor/.*\.(?!json$|txt$)\w+")
_GRAPH = re.compile(r"models/[^/]+\.json")
_OPERATORS = re.compile(
    r"torch\.ops\.(?:aten|prim|prims|higher_order|quantized|quantized_decomposed|torchvision|torchaudio|torchao|rngprims|"
    r"mkldnn|onednn|mkldnn_prepacked|_quantized|inductor)\.(?!from_file|save|load|_test)\w[\w.]*|math\.\w+|"
    r"_?operator\.(?:getitem|add|sub|mul|truediv|floordiv|mod|pow|neg|pos|eq|ne|lt|le|gt|ge|and_|or_|xor|not_|abs|invert|"
    r"lshift|rshift|inv|matmul)|torch\.(?:_?sym_\w+|_check\w*)|(?:builtins\.)?(?:round|max|min|abs|int|float|bool)|"
    r"torch\._higher_order_ops\.[\w.]+|torch\.fx\.experimental\.symbolic_shapes\.\w+|"
    r"torch\.utils\._sympy\.functions\.\w+|torch\.(?:amp\.autocast_mode|autograd\.grad_mode|_C)\.\w*(?:autocast|grad)\w*"
)
_NAMED = re.compile(r"torch\.ops\.\w+\.[\w.]+")


def is_export(names: set[str]) -> str | None:
    """The folder of an archive of torch.export among these files; None if there is none."""
    roots = [name.removesuffix(MARK) for name in names if name == MARK or name.endswith(f"/{MARK}")]
    return roots[0] if len(roots) == 1 and roots[0].count("/") <= 1 else None


def scan_export_entry(inner: Source, own: str, look: Look, where: str) -> None:
    """Look at a file of an archive of torch.export; `own` is its name within the archive's folder."""
    if _NUMBERS.fullmatch(own):
        # bare numbers, unless the configuration says that they are to be unpickled
        if inner.read(0, 2) == b"PK":
            look.examine(inner, where)
        elif inner.size > 2 and (found := pickled(look, inner)) is not None:
            look.add("nested-pickle", where, f"{where}: the numbers of a tensor are a pickle{found}")
        return
    if _OBJECT.fullmatch(own):
        look.add("format", where, f"{where} is an object of somebody's class, which its loader makes")
    if _COMPILED.fullmatch(own):
        look.add("program", where, f"{where} is compiled for a machine: it runs when the model does")
        return
    if _GRAPH.fullmatch(own):
        _graph(inner, look, where)
    look.examine(inner, where)


def _graph(inner: Source, look: Look, where: str) -> None:
    if inner.size > GRAPH_BYTES_MAX:
        look.add("limit", where, f"{where} has {inner.size} bytes of graph")
        return
    try:
        document = json.loads(inner.read(0, inner.size))
    except (ValueError, RecursionError):
        raise FormatError("a graph of torch.export is no JSON") from None
    for name in sorted(_targets(document, look, where))[:TARGETS_SAID_MAX]:
        if _NAMED.fullmatch(name) and not name.startswith("torch.ops.aten."):
            message = f"{where} calls the operator {name!r}, which needs a native library"
            look.add("graph-operator", where, message, "suspicious")
        else:
            look.add("graph-operator", where, f"{where} calls {name!r}, which is no operator of torch")


def _targets(document: Any, look: Look, where: str) -> set[str]:
    """What the nodes of a graph call, and is not known."""
    found: set[str] = set()
    for item in objects(document, look, where):
        target = item.get("target")
        if isinstance(target, str) and "inputs" in item and not _OPERATORS.fullmatch(target):
            found.add(target)
    return found
