"""What whoever trained a model says of its privacy: ε, δ and all that they follow from. Bytes in, values out.

Canonical JSON, numbers as decimal text. A statement is a claim: `verify` recomputes its ε from its own figures, and
that the training was as they say is nothing that a document could show.
"""

import math
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from palladion import canonical, files
from palladion.errors import FormatError

STATEMENT_BYTES_MAX = 8 * 1024  # one has some 700 bytes; it is stored with the version and in a record of the ledger
EPSILON_MAX = 1000.0  # above 20 or so a statement says nothing; above this it is no number that anybody meant
STEPS_MAX = 100_000_000
NOISE_MAX = 1e9
LIBRARIES_MAX = 16

Mechanism = Literal["noisy-gradient-descent", "dp-sgd"]
_Number = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,12}(\.[0-9]{1,17})?(e-[0-9]{1,3})?\Z")]
_Word = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._+()/-]{0,63}\Z")]


class PrivacyStatement(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What one training run spent: (`epsilon`, `delta`) for each of `rows` examples, added or removed.

    `noise_multiplier` is the noise's deviation beside `clipping`, the largest norm of one example's gradient;
    `sampling_rate` the chance of each example to be in a step, 1 where all are in all. `epsilon_rdp` is the same
    training by another accountant, which is looser, or empty. `noise` says whether the noise came of a seed, which
    whoever knows the seed can subtract. The number of rows itself is not protected, nor is a search over settings
    charged.
    """

    v: Literal[1] = 1
    epsilon: _Number
    delta: _Number
    unit: Literal["example"] = "example"
    neighbours: Literal["add-or-remove-one"] = "add-or-remove-one"
    mechanism: Mechanism
    accountant: Literal["pld", "analytic-gaussian", "rdp", "prv"]
    epsilon_rdp: Annotated[str, msgspec.Meta(pattern=r"^([0-9]{1,12}(\.[0-9]{1,17})?(e-[0-9]{1,3})?)?\Z")] = ""
    noise_multiplier: _Number
    sampling_rate: _Number
    steps: Annotated[int, msgspec.Meta(ge=1, le=STEPS_MAX)]
    clipping: _Number
    rows: Annotated[int, msgspec.Meta(ge=1, le=canonical.INTEGER_MAX)]
    noise: Literal["cryptographic", "seeded", "pseudorandom"]
    libraries: Annotated[dict[_Word, _Word], msgspec.Meta(max_length=LIBRARIES_MAX)] = {}

    def encode(self) -> bytes:
        """Canonical JSON. Raises ValueError on a field that no reader would accept."""
        try:
            _check(self)
        except msgspec.ValidationError as error:
            raise ValueError(f"not a statement that a reader would accept: {error}") from None
        return canonical.encode(msgspec.to_builtins(self))

    @property
    def sentence(self) -> str:
        """What people are shown."""
        return f"ε = {self.epsilon} at δ = {self.delta} for each of {self.rows:,} examples, as stated"


def decode_statement(data: bytes, *, what: str) -> PrivacyStatement:
    """The statement of canonical JSON. Raises FormatError, naming `what`."""
    return statement_of(canonical.decode(data, size_max=STATEMENT_BYTES_MAX, what=what), what=what)


def statement_of(document: Any, *, what: str) -> PrivacyStatement:
    """The statement that a parsed document is. Raises FormatError, naming `what`."""
    try:
        statement = msgspec.convert(document, PrivacyStatement, strict=True)
        _check(statement)
    except (msgspec.ValidationError, ValueError) as error:
        raise FormatError(f"{what} is no statement of a training's privacy: {error}") from None
    return statement


def read_statement(path: Path) -> PrivacyStatement:
    """The statement in a file, in canonical JSON or any other. Raises FormatError, StorageError."""
    data = files.read_limited(path, size_max=STATEMENT_BYTES_MAX, what="the statement of a training's privacy")
    try:
        document = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise FormatError(f"{path} is not JSON: {error}") from None
    return statement_of(document, what=str(path))


def number_text(value: float, *, up: bool = False) -> str:
    """A number as statements have it; with `up` to six digits, and never below `value`."""
    if not up:
        return _plain(f"{value:.12g}")
    if value <= 0:
        return "0"
    unit = 10.0 ** (math.floor(math.log10(value)) - 5)
    found = math.ceil(value / unit) * unit
    text = f"{found:.6g}"
    return _plain(text if float(text) >= value else f"{found + unit:.6g}")


def _plain(text: str) -> str:
    mantissa, separator, exponent = text.partition("e")
    if separator and not exponent.startswith("-"):
        return f"{float(text):.0f}"
    return mantissa + (f"e-{int(exponent[1:])}" if separator else "")


def _check(statement: PrivacyStatement) -> None:
    # a Struct checks its fields when it is converted, not when it is made
    msgspec.convert(msgspec.to_builtins(statement), PrivacyStatement, strict=True)
    bounds = {
        "epsilon": (0.0, EPSILON_MAX),
        "delta": (0.0, 1.0),
        "noise_multiplier": (0.0, NOISE_MAX),
        "sampling_rate": (0.0, 1.0),
        "clipping": (0.0, NOISE_MAX),
    }
    for name, (low, high) in bounds.items():
        value = float(getattr(statement, name))
        if not low < value <= high or (name == "delta" and value >= 1):
            raise ValueError(f"{name} is {value:g}, more than {low:g} and up to {high:g} was expected")
    if statement.mechanism == "noisy-gradient-descent" and float(statement.sampling_rate) != 1:
        raise ValueError("a descent over all rows was stated, with a sampling rate that is not 1")
