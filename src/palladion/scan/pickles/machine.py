"""The pickle machine (Lib/pickletools.py, PEP 307, 3154, 574), run on names instead of objects: nothing is imported,
called or made. What an instruction would do decides whether it is reported; `calls` judges what would be called.
"""

from collections.abc import Callable
from typing import Any

from palladion.scan.look import Look
from palladion.scan.pickles import calls
from palladion.scan.pickles.allowed import is_name, kind_of
from palladion.scan.pickles.opcodes import ACTS
from palladion.scan.pickles.reader import PickleError, Reader
from palladion.scan.pickles.strings import Strings
from palladion.scan.pickles.values import MARK, TEXT_MAX, Long, Ref, said
from palladion.scan.source import LimitError

NAME_CHARACTERS_MAX = 512  # of a module, and of what is named in it: the longest on the list has 112
STACK_MAX = 4_000_000  # entries; the C reader has no bound, and lists come in batches of a thousand
MEMO_MAX = 8_000_000


class Machine:
    """Runs one pickle from `reader` to its STOP; `torch` says that persistent names of storages are expected.

    `run` raises PickleError where Python would. `storages` maps the keys of tensors' storages to (class, numbers).
    `raw_array` is called for an array of joblib's whose bytes follow the instruction, and passes over them.
    """

    def __init__(self, reader: Reader, look: Look, where: str, *, torch: str = "") -> None:
        self.reader: Reader = reader
        self.look: Look = look
        self.where: str = where
        self.torch: str = torch
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, tuple[str, int]] = {}
        self.calls_made = 0  # that Python would have made: a text that happens to be read as a pickle makes none
        self.steps = 0
        self.named: set[str] = set()  # what it names that is not on the list, and that could be a name
        self.strings = Strings(look, where)
        # names that are judged by what they are called with: how often they were put on the stack and not called
        self.unused: dict[tuple[str, str], int] = {}
        self.fields: dict[int, Any] = {}  # of dtypes, by their identity: NumPy keeps the dictionary itself
        self.raw_array: Callable[[Machine, dict[Any, Any]], None] | None = None

    def add(self, rule: str, message: str, *, suspicious: bool = False) -> None:
        """Report a finding of this pickle."""
        self.look.add(rule, self.where, f"{self.where}: {message}", "suspicious" if suspicious else "refused")

    def run(self) -> Any:
        """Follow the instructions up to STOP; gives what would be returned."""
        look, next_code, act_of, stack, memo = self.look, self.reader.code, ACTS.get, self.stack, self.memo
        while True:
            code = next_code()
            self.steps += 1
            look.opcodes_left -= 1
            if look.opcodes_left < 0:
                raise LimitError("its pickles have more instructions than a scan follows")
            if code == 0x2E:
                for module, name in self.unused:
                    self._unlisted(module, name)
                return self.pop()
            act = act_of(code)
            if act is None:
                raise PickleError(f"byte {self.reader.position - 1} is no instruction ({code:#04x})")
            act(self)
            # an instruction adds one object, so that it does not matter by how few this comes late
            if not self.steps & 1023 and (len(stack) > STACK_MAX or len(memo) > MEMO_MAX):
                raise LimitError("a pickle needs more memory than a scan spends on one")

    def pop(self) -> Any:
        """Take the top of the stack; a mark there is no object."""
        if not self.stack:
            raise PickleError("an instruction needs an object, and there is none")
        value = self.stack.pop()
        if value is MARK:
            raise PickleError("an instruction needs an object, and there is a mark")
        return value

    def top(self) -> Any:
        """The top of the stack, left there."""
        value = self.pop()
        self.stack.append(value)
        return value

    def pop_mark(self) -> list[Any]:
        """Take everything above the last mark, and the mark."""
        for index in range(len(self.stack) - 1, -1, -1):
            if self.stack[index] is MARK:
                items = self.stack[index + 1 :]
                del self.stack[index:]
                return items
        raise PickleError("an instruction needs a mark, and there is none")

    def ref(self, module: Any, name: Any) -> None:
        """A name is looked up, and its module imported."""
        if not isinstance(module, str) or not isinstance(name, str):
            self.add("pickle-opcode", f"names what it imports by {said(module)} and {said(name)}: nobody can say what")
            self.stack.append(Ref("?", "?", None))
            return
        # longer ones are on no list; a million messages may speak of one
        module, name = module[:NAME_CHARACTERS_MAX], name[:NAME_CHARACTERS_MAX]
        kind: str | None = kind_of(module, name)
        if kind is None and self.torch == "script" and module.split(".")[0] == "__torch__":
            kind = "class"  # TorchScript's own classes: their code lies in the same archive, and is looked at there
        if kind is None and (module, name) in calls.BY_ARGUMENTS:
            kind = "judged"
        if kind is None:
            self._unlisted(module, name)
        self.push(Ref(module, name, kind))

    def push(self, value: Any) -> None:
        """Put an object on the stack, for the first time or again."""
        if isinstance(value, Ref) and value.kind == "judged":
            key = (value.module, value.name)
            self.unused[key] = self.unused.get(key, 0) + 1
        self.stack.append(value)

    def _unlisted(self, module: str, name: str) -> None:
        if is_name(module) and is_name(name):
            self.named.add(f"{module}.{name}")
        self.add("pickle-global", f"names {module}.{name}, which is not on the list of harmless functions and classes")

    def judged(self, of: Ref) -> None:
        """A name that is judged by its arguments was called with harmless ones."""
        key = (of.module, of.name)
        left = self.unused.pop(key, 0) - 1
        if left > 0:
            self.unused[key] = left

    def refuse(self, of: Ref) -> None:
        """A name that is judged by its arguments was used otherwise."""
        self.judged(of)
        self._unlisted(of.module, of.name)

    def text(self, begin: int, size: int) -> None:
        """A string of `size` bytes, which were passed over."""
        data = self.reader.source.read(begin, min(size, TEXT_MAX))
        whole = size <= TEXT_MAX
        self.strings.look_at_range(self.reader.source, begin, size, text=True)
        text = data.decode("utf-8", "surrogatepass" if whole else "replace") if _is_utf8(data, whole) else "\ufffd"
        self.stack.append(text if whole else Long(size, text, begin=begin))

    def data(self, begin: int, size: int) -> None:
        """A bytes object of `size` bytes, which were passed over."""
        self.strings.look_at_range(self.reader.source, begin, size, text=False)
        data = self.reader.source.read(begin, min(size, TEXT_MAX))
        self.stack.append(data if size <= TEXT_MAX else Long(size, data))


def _is_utf8(data: bytes, whole: bool) -> bool:
    try:
        data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        if whole:
            raise PickleError("a string is not UTF-8") from None
    return True
