"""The instructions of the pickle machine, by their bytes (Lib/pickletools.py): what each does to stack and memo."""

import codecs
import re
import struct
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from palladion.scan.pickles import calls
from palladion.scan.pickles.reader import PickleError
from palladion.scan.pickles.values import ITEMS_MAX, MARK, TEXT_MAX, Long, Marker, Ref

if TYPE_CHECKING:
    from palladion.scan.pickles.machine import Machine

LONG_BYTES_MAX = 4096  # a number: Python itself reads 4300 digits
_PROTOCOL_MAX = 5


def _keep(items: list[Any], more: list[Any]) -> None:
    room = ITEMS_MAX - len(items)
    if room > 0:
        items.extend(more[:room])


def _proto(m: "Machine") -> None:
    version = m.reader.number(1)
    if version > _PROTOCOL_MAX:
        raise PickleError(f"it is of protocol {version}, expected at most {_PROTOCOL_MAX}")


def _decimal(m: "Machine") -> int:
    line = m.reader.line()
    try:
        return int(line)
    except ValueError:
        raise PickleError("a number is none") from None


def _long_text(m: "Machine") -> int:
    try:
        return int(m.reader.line().removesuffix(b"L"), 0)
    except ValueError:
        raise PickleError("a number is none") from None


def _int(m: "Machine") -> None:
    line = m.reader.line()
    if line in {b"00", b"01"}:
        m.stack.append(line == b"01")
        return
    try:
        # the C reader takes 010 for octal (strtol)
        m.stack.append(int(line, 8) if re.fullmatch(rb"[ \t]*[+-]?0[0-7]+", line) else int(line, 0))
    except ValueError:
        raise PickleError("a number is none") from None


def _float(m: "Machine") -> None:
    try:
        m.stack.append(float(m.reader.line()))
    except ValueError:
        raise PickleError("a number is none") from None


def _long(m: "Machine", count: int) -> None:
    if count > LONG_BYTES_MAX:
        m.reader.skip(count)  # Python reads it: what follows counts
        m.stack.append(2 ** (8 * LONG_BYTES_MAX))
        return
    m.stack.append(m.reader.number(count, signed=True))


def _string(m: "Machine") -> None:
    line = m.reader.line().strip()
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in b"'\"":
        raise PickleError("a string has no quotes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes that mean nothing
            text = codecs.escape_decode(line[1:-1])[0].decode("latin-1")
    except ValueError:
        raise PickleError("a string has a broken escape") from None
    m.strings.look_at(text)
    m.stack.append(text)


def _unicode(m: "Machine") -> None:
    try:
        text = m.reader.line().decode("raw-unicode-escape")
    except UnicodeDecodeError:
        raise PickleError("a string has a broken escape") from None
    m.strings.look_at(text)
    m.stack.append(text)


def _latin(m: "Machine", size: int) -> None:
    begin, size = m.reader.skip(size)
    data = m.reader.source.read(begin, min(size, TEXT_MAX))
    m.strings.look_at_range(m.reader.source, begin, size, text=False)
    m.stack.append(data.decode("latin-1") if size <= TEXT_MAX else Long(size, data))


def _global(m: "Machine") -> None:
    module, name = m.reader.line(), m.reader.line()
    m.ref(module.decode("utf-8", "replace"), name.decode("utf-8", "replace"))


def _stack_global(m: "Machine") -> None:
    name, module = m.pop(), m.pop()
    m.ref(module, name)


def _extension(m: "Machine", size: int) -> None:
    code = m.reader.number(size)
    m.add("pickle-opcode", f"names what it imports by the extension code {code}: only its reader knows what that is")
    m.stack.append(Ref("?", "?", None))


def _reduce(m: "Machine") -> None:
    args, of = m.pop(), m.pop()
    m.stack.append(calls.called(m, of, args))


def _newobj(m: "Machine") -> None:
    args, of = m.pop(), m.pop()
    m.stack.append(calls.instance(m, of, args))


def _newobj_ex(m: "Machine") -> None:
    kwargs, args, of = m.pop(), m.pop(), m.pop()
    if not isinstance(kwargs, dict):
        raise PickleError("keyword arguments are no dictionary")
    m.stack.append(calls.instance(m, of, args))


def _inst(m: "Machine") -> None:
    items = tuple(m.pop_mark())  # first, as Python does: without a mark nothing is imported
    _global(m)
    of = m.stack.pop()
    m.stack.append(calls.called(m, of, items))


def _obj(m: "Machine") -> None:
    items = m.pop_mark()
    if not items:
        raise PickleError("an object has no class")
    m.stack.append(calls.called(m, items[0], tuple(items[1:])))


def _build(m: "Machine") -> None:
    state = m.pop()
    for part in state if isinstance(state, tuple) and len(state) == 2 else (state,):
        if isinstance(part, dict):
            m.look.work(len(part) // 16)  # whose names are looked at; the same state may come a million times
    calls.built(m, m.top(), state)


def _persistent(m: "Machine", name: Any) -> None:
    m.stack.append(calls.persistent(m, name))


def _persid(m: "Machine") -> None:
    _persistent(m, m.reader.line().decode("latin-1"))


def _append(m: "Machine") -> None:
    item = m.pop()
    target = m.top()
    calls.extended(m, target)
    if isinstance(target, list):
        _keep(target, [item])


def _appends(m: "Machine") -> None:
    items = m.pop_mark()
    target = m.top()
    calls.extended(m, target)
    if isinstance(target, list):
        _keep(target, items)


def _store(target: Any, key: Any, value: Any) -> None:
    if isinstance(target, dict) and len(target) < ITEMS_MAX and isinstance(key, str | int | bytes | float):
        target[key] = value


def _setitem(m: "Machine") -> None:
    value, key = m.pop(), m.pop()
    target = m.top()
    calls.extended(m, target)
    _store(target, key, value)


def _setitems(m: "Machine") -> None:
    items = m.pop_mark()
    target = m.top()
    calls.extended(m, target)
    if len(items) % 2:
        raise PickleError("a dictionary has a key without a value")
    for key, value in zip(items[::2], items[1::2], strict=True):
        _store(target, key, value)


def _dict(m: "Machine") -> None:
    items = m.pop_mark()
    if len(items) % 2:
        raise PickleError("a dictionary has a key without a value")
    target: dict[Any, Any] = {}
    for key, value in zip(items[::2], items[1::2], strict=True):
        _store(target, key, value)
    m.stack.append(target)


def _tuple(m: "Machine", count: int | None) -> None:
    if count is None:
        m.stack.append(tuple(m.pop_mark()))
        return
    if len(m.stack) < count or any(item is MARK for item in m.stack[len(m.stack) - count :]):
        raise PickleError("a tuple has too few items")
    items = tuple(m.stack[len(m.stack) - count :])
    del m.stack[len(m.stack) - count :]
    m.stack.append(items)


def _pop(m: "Machine") -> None:
    if not m.stack:
        raise PickleError("an instruction needs an object, and there is none")
    m.stack.pop()


def _get(m: "Machine", key: int) -> None:
    if key not in m.memo:
        raise PickleError(f"it takes object {key}, which it has not kept")
    m.push(m.memo[key])


def _put(m: "Machine", key: int) -> None:
    if key < 0:
        raise PickleError("it keeps an object under a negative number")
    m.memo[key] = m.top()


def _buffer(m: "Machine") -> None:
    m.add("pickle-opcode", "needs buffers from outside, which are not in the file")
    m.stack.append(Marker("buffer"))


def _push(value: Callable[[], Any]) -> Callable[["Machine"], None]:
    return lambda m: m.stack.append(value())


def _binary_float(m: "Machine") -> None:
    m.stack.append(struct.unpack(">d", m.reader.take(8))[0])


ACTS: dict[int, Callable[["Machine"], None]] = {
    0x80: _proto,
    0x95: lambda m: m.reader.frame(m.reader.number(8)),
    ord("("): lambda m: m.stack.append(MARK),
    ord("0"): _pop,
    ord("1"): lambda m: (m.pop_mark(), None)[1],
    ord("2"): lambda m: m.push(m.top()),
    ord("N"): _push(lambda: None),
    0x88: _push(lambda: True),
    0x89: _push(lambda: False),
    ord("I"): _int,
    ord("L"): lambda m: m.stack.append(_long_text(m)),
    ord("F"): _float,
    ord("G"): _binary_float,
    ord("J"): lambda m: m.stack.append(m.reader.number(4, signed=True)),
    ord("K"): lambda m: m.stack.append(m.reader.number(1)),
    ord("M"): lambda m: m.stack.append(m.reader.number(2)),
    0x8A: lambda m: _long(m, m.reader.number(1)),
    0x8B: lambda m: _long(m, m.reader.number(4)),
    ord("S"): _string,
    ord("T"): lambda m: _latin(m, m.reader.number(4)),
    ord("U"): lambda m: _latin(m, m.reader.number(1)),
    ord("V"): _unicode,
    ord("X"): lambda m: m.text(*m.reader.skip(m.reader.number(4))),
    0x8C: lambda m: m.text(*m.reader.skip(m.reader.number(1))),
    0x8D: lambda m: m.text(*m.reader.skip(m.reader.number(8))),
    ord("B"): lambda m: m.data(*m.reader.skip(m.reader.number(4))),
    ord("C"): lambda m: m.data(*m.reader.skip(m.reader.number(1))),
    0x8E: lambda m: m.data(*m.reader.skip(m.reader.number(8))),
    0x96: lambda m: m.data(*m.reader.skip(m.reader.number(8))),
    ord("]"): _push(list),
    ord("}"): _push(dict),
    ord(")"): _push(tuple),
    0x8F: _push(list),
    ord("l"): lambda m: m.stack.append(m.pop_mark()[:ITEMS_MAX]),
    ord("d"): _dict,
    ord("t"): lambda m: _tuple(m, None),
    0x85: lambda m: _tuple(m, 1),
    0x86: lambda m: _tuple(m, 2),
    0x87: lambda m: _tuple(m, 3),
    0x90: _appends,
    0x91: lambda m: m.stack.append(tuple(m.pop_mark()[:ITEMS_MAX])),
    ord("a"): _append,
    ord("e"): _appends,
    ord("s"): _setitem,
    ord("u"): _setitems,
    ord("g"): lambda m: _get(m, _decimal(m)),
    ord("h"): lambda m: _get(m, m.reader.number(1)),
    ord("j"): lambda m: _get(m, m.reader.number(4)),
    ord("p"): lambda m: _put(m, _decimal(m)),
    ord("q"): lambda m: _put(m, m.reader.number(1)),
    ord("r"): lambda m: _put(m, m.reader.number(4)),
    0x94: lambda m: _put(m, len(m.memo)),
    ord("c"): _global,
    0x93: _stack_global,
    0x82: lambda m: _extension(m, 1),
    0x83: lambda m: _extension(m, 2),
    0x84: lambda m: _extension(m, 4),
    ord("R"): _reduce,
    0x81: _newobj,
    0x92: _newobj_ex,
    ord("i"): _inst,
    ord("o"): _obj,
    ord("b"): _build,
    ord("P"): _persid,
    ord("Q"): lambda m: _persistent(m, m.pop()),
    0x97: _buffer,
    0x98: lambda m: (m.top(), None)[1],
}
