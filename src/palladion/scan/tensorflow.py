"""TensorFlow's SavedModel and GraphDef (protobuf): the operators of every graph and function in them.

An operator of a graph runs in C++ with the rights of the process. Those that read or write files, load libraries or
call back into Python are refused; those that are not known are suspicious.
"""

import re
from collections.abc import Iterator

from palladion.errors import FormatError
from palladion.scan.look import Look
from palladion.scan.source import LimitError, Source

MODEL_BYTES_MAX = 256 * 2**20
FIELDS_MAX = 4_000_000
OPERATORS_SAID_MAX = 20
_REFUSED = re.compile(
    r"(?:Eager)?PyFunc(?:Stateless)?|ReadFile|WriteFile|MatchingFiles|DebugIdentity\w*|DebugNumericSummary\w*|DebugNanCount|"
    r"Save(?:V2|Slices)?|SaveDataset(?:V2)?|LoadDataset(?:V2)?|DatasetToTFRecord\w*|Snapshot\w*Dataset\w*|"
    r"\w*(?:TextLine|TFRecord|FixedLengthRecord|Sql|CSV|LMDB)\w*(?:Dataset|Reader)\w*|WholeFileReader\w*|PrintV2|"
    r"AudioSummary|WriteSummary|WriteScalarSummary|WriteGraphSummary|WriteRawProtoSummary|\w*SummaryWriter\w*|"
    r"ShellExecute|SystemConfig|LoadLibrary|\w*Rpc\w*|CollectiveBcast\w*|Distributed\w*|DataService\w*|RegisterDataset\w*|"
    r"InitializeTableFromTextFile(?:V2)?|PyLambda|GeneratorDataset|ImportEvent|IO\w+|\w*Parquet\w*|BigQuery\w*|"
    r"XlaLaunch\w*Host\w*|TfLite\w*Custom\w*|CreateSummaryFileWriter|CreateSummaryDbWriter|DecodeProto\w*|EncodeProto"
)
_CHECKPOINT = frozenset(
    {"SaveV2", "Save", "SaveSlices", "MergeV2Checkpoints", "RestoreV2", "ShardedFilename", "PrintV2", "Print"}
)
# Names of known operators, by their parts: arithmetic, neural networks, variables, strings, control flow, checkpoints.
_KNOWN = re.compile(
    r"(?:Abs|Add\w*|Acos\w*|All|Any|Apply\w*|Arg(?:Max|Min)|Asin\w*|Assert|Assign\w*|AsString|Atan\w*|AvgPool\w*|Batch\w*|"
    r"Bias\w*|Bincount|Bitcast|Bitwise\w*|Bessel\w*|Betainc|Broadcast\w*|Bucketize|Case|Cast|Ceil|CheckNumerics\w*|Cholesky\w*|ClipByValue|"
    r"Combined\w*|Complex\w*|Concat\w*|Conj\w*|Const|Conv\w*|Cos\w*|Crop\w*|Cross|Cumprod|Cumsum|Cumulative\w*|Data\w*Dataset|"
    r"Decode(?:Base64|Raw|Jpeg|Png|Image|Gif|Bmp|CSV|Wav|JSONExample|AndCropJpeg|PaddedRaw)|DeepCopy|Dense\w*|DepthToSpace|Depthwise\w*|Dequantize|"
    r"DestroyResourceOp|Diag\w*|Digamma|Dilation\w*|Div\w*|DynamicPartition|DynamicStitch|Einsum|Elu\w*|Empty\w*|"
    r"Encode(?:Base64|Jpeg|Png|Wav)|EnsureShape|Enter|Equal|Erf\w*|Exit|Exp\w*|Extract\w*|FFT\w*|Fake(?:Quant\w*)|Fill|Floor\w*|"
    r"For|FusedBatchNorm\w*|FusedPad\w*|FusedResize\w*|Gather\w*|Greater\w*|HashTable\w*|HistogramFixedWidth|IFFT\w*|IRFFT\w*|"
    r"Identity\w*|If|Igamma\w*|ImageProjective\w*|Imag|InTopK\w*|InplaceAdd|InplaceUpdate|Inv\w*|Invert\w*|Is(?:Finite|Inf|Nan)|"
    r"IsVariableInitialized|L2Loss|LRN|LSTMBlock\w*|LeakyRelu\w*|LeftShift|Less\w*|Lgamma|LinSpace|ListDiff|Log\w*|Lookup\w*|LoopCond|"
    r"LowerBound|MatMul|Matrix\w*|Max\w*|Mean|Merge\w*|Mfcc|Min\w*|Mirror\w*|Mod|Mul\w*|MutableHashTable\w*|MutableDenseHashTable\w*|Multinomial|Ndtri|"
    r"Neg|Next(?:After|Iteration)|NoOp|NonMaxSuppression\w*|NotEqual|OneHot|OnesLike|Pack|Pad\w*|ParallelConcat|ParallelDynamicStitch|"
    r"Parameterized\w*|Parse(?:Example\w*|SingleExample\w*|Tensor)|PartitionedCall|Placeholder\w*|Polygamma|Pow|PreventGradient|"
    r"Prod|Qr|Quantize\w*|Quantized\w*|RFFT\w*|RGBToHSV|HSVToRGB|Ragged\w*|Random\w*|Range|Rank|ReadVariableOp|Real\w*|Reciprocal\w*|"
    r"ReduceJoin|RefEnter|RefExit|RefMerge|RefSwitch|Regex\w*|Relu\w*|Reshape|Resize\w*|Resource\w*|Restore\w*|Reverse\w*|"
    r"RightShift|Rint|Roll|Round|Rsqrt\w*|SampleDistorted\w*|ScaleAndTranslate\w*|Scatter\w*|Segment\w*|Select\w*|SelfAdjoint\w*|Selu\w*|"
    r"SerializeTensor|Shape\w*|ShardedFilename|Sigmoid\w*|Sign|Sin\w*|Size|Slice|Snapshot|Soft\w*|SpaceTo\w*|Sparse\w*|Split\w*|"
    r"Sqrt\w*|Square\w*|Squeeze|Stack\w*|StateLess\w*|Stateful\w*|Stateless\w*|StaticRegex\w*|StopGradient|Strided\w*|String\w*|Sub\w*|Substr|Sum|Svd|Switch|"
    r"SymbolicGradient|Tan\w*|TensorArray\w*|TensorList\w*|TensorScatter\w*|TensorStrided\w*|Tile\w*|Timestamp|TopK\w*|Transpose|Tridiagonal\w*|"
    r"Truncate\w*|Truncated\w*|Unbatch\w*|Unicode\w*|Unique\w*|Unpack|UnravelIndex|Unsorted\w*|UpperBound|VarHandleOp|VarIsInitializedOp|"
    r"Variable\w*|Where|While|Xdivy|Xlog\w*|ZerosLike|Zeta|CudnnRNN\w*|BlockLSTM\w*|GRUBlock\w*|MutexV2|Bernoulli|AnonymousMutable\w*|"
    r"_FusedConv2D|_FusedMatMul|_Arg|_Retval|XlaConvV2|Xla\w*|DisableCopyOnRead|MergeV2Checkpoints|SaveV2|Save|Print\w*)"
)


def scan_saved_model(source: Source, look: Look, where: str) -> str:
    """Report the operators of a SavedModel, or of a frozen graph, that do more than arithmetic."""
    if source.size > MODEL_BYTES_MAX:
        look.add("limit", where, f"{where} has {source.size} bytes of graph")
        return "savedmodel"
    data = source.read(0, source.size)
    try:
        names = operators(data)
    except FormatError as error:
        look.add("structure", where, f"{where}: {error.message}")
        return "savedmodel"
    told = 0
    for name in sorted(names):
        if told >= OPERATORS_SAID_MAX:
            break
        if name in _CHECKPOINT:
            continue  # every SavedModel saves and restores its variables by these
        if _REFUSED.fullmatch(name):
            look.add("graph-operator", where, f"{where} holds the operator {name}, which reaches files or Python")
            told += 1
        elif not _KNOWN.fullmatch(name):
            look.add(
                "graph-operator", where, f"{where} holds the operator {name[:80]!r}, which is not known", "suspicious"
            )
            told += 1
    return "savedmodel"


def looks_like_saved_model(data: bytes) -> bool:
    """Whether bytes begin as a SavedModel: schema version 1, and then a graph; or as a GraphDef of nodes."""
    if data[:3] == b"\x08\x01\x12":
        return True
    if data[:1] == b"\x12":  # without a schema version: a MetaGraphDef, and in it a graph
        try:
            _, at = _varint(data, 1)
            if data[at : at + 1] == b"\x0a":
                size, place = _varint(data, at + 1)
                at = place + size
            if data[at : at + 1] == b"\x12":
                _, at = _varint(data, at + 1)
                return _looks_like_graph(data[at:])
        except (FormatError, IndexError):
            return False
    return _looks_like_graph(data)


def _looks_like_graph(data: bytes) -> bool:
    if data[:1] != b"\x0a" or len(data) < 8:
        return False
    try:
        length, at = _varint(data, 1)
        inner = data[at : at + min(length, 300)]
        # a node: its name, and then its operator
        size, place = _varint(inner, 1)
        follow = place + size
        return (
            inner[:1] == b"\x0a" and inner[follow : follow + 1] == b"\x12" and size > 0
            and inner[follow + 2 : follow + 3].isalpha() and inner[place : place + size].isascii()
        )  # fmt: skip
    except (FormatError, IndexError):
        return False


def operators(data: bytes) -> set[str]:
    """Names of the operators in all graphs and functions. Raises FormatError."""
    view, names, budget = memoryview(data), set[str](), [FIELDS_MAX]
    if data[:3] == b"\x08\x01\x12" or data[:1] == b"\x12":
        graphs = [
            graph
            for number, meta in _fields(view, budget) if number == 2
            for inner, graph in _fields(meta, budget) if inner == 2
        ]  # fmt: skip
    else:
        graphs = [view]
    own: set[str] = set()
    for graph in graphs:
        for number, value in _fields(graph, budget):
            if number == 1:
                names.add(_operator(value, 2, budget))
            elif number == 2:
                for inner, function in _fields(value, budget):
                    if inner == 1:
                        names.update(
                            _operator(node, 2, budget) for field, node in _fields(function, budget) if field == 3
                        )
                        # a graph calls its functions by their names, as if they were operators
                        own.update(
                            _operator(head, 1, budget) for field, head in _fields(function, budget) if field == 1
                        )
    return {name for name in names - {name for name in own if not _REFUSED.fullmatch(name)} if name}


def _operator(node: memoryview, field: int, budget: list[int]) -> str:
    for number, value in _fields(node, budget):
        if number == field:
            return bytes(value[:200]).decode("utf-8", "replace")
    return ""


def _varint(data: bytes | memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise FormatError("a protobuf number is cut off")
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def _fields(data: memoryview, budget: list[int]) -> Iterator[tuple[int, memoryview]]:
    """The fields of a message that hold bytes, by number."""
    at = 0
    while at < len(data):
        budget[0] -= 1
        if budget[0] < 0:
            raise LimitError("a graph has more fields than a scan follows")
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            _, at = _varint(data, at)
        elif kind == 2:
            length, at = _varint(data, at)
            if at + length > len(data):
                raise FormatError("a protobuf field is cut off")
            yield number, data[at : at + length]
            at += length
        elif kind in {1, 5}:
            at += 8 if kind == 1 else 4
        else:
            raise FormatError("a protobuf field is of an unknown kind")
