"""The machine follows every instruction, and judges what Python would import, call and change."""

import pickle
import struct
from collections import OrderedDict

import pytest

from palladion.scan.content import examine
from palladion.scan.look import Look
from palladion.scan.pickles.allowed import kind_of
from palladion.scan.pickles.machine import Machine
from palladion.scan.pickles.reader import PickleError, Reader
from palladion.scan.source import Held, LimitError
from tests.scan.corpus.sample import call, name, start, strings, text


def _run(data: bytes, *, torch: str = "", opcodes: int = 10_000) -> tuple[Look, Machine]:
    look = Look(examine, opcodes_left=opcodes)
    machine = Machine(Reader(Held(data), 0), look, "it", torch=torch)
    machine.run()
    return look, machine


@pytest.mark.parametrize("protocol", range(6))
def test_plain_values_come_out_as_they_went_in(protocol: int) -> None:
    value = {"a": [1, -5, 2**70, 1.5, None, True], "b": ("x", "ü")}
    look = Look(examine)
    assert Machine(Reader(Held(pickle.dumps(value, protocol)), 0), look, "it").run() == value
    assert look.findings == []


@pytest.mark.parametrize("protocol", range(6))
def test_a_call_is_reported_by_the_name_of_what_is_called(protocol: int) -> None:
    look, machine = _run(call("os", "system", protocol=protocol))
    assert [item.rule for item in look.findings] == ["pickle-global"]
    assert "os.system" in look.findings[0].message
    assert machine.calls_made == 1


def test_names_from_the_memo_are_followed() -> None:
    look, _ = _run(start(4) + text("os") + b"\x94" + text("system") + b"\x9400h\x00h\x01\x93.")
    assert "os.system" in look.findings[0].message


def test_harmless_classes_may_be_called() -> None:
    assert _run(pickle.dumps(OrderedDict(a=1)))[0].findings == []
    assert kind_of("collections", "OrderedDict") == "class"
    assert kind_of("sklearn.ensemble._forest", "RandomForestClassifier") == "class"
    assert kind_of("sklearn.externals.x", "RandomForestClassifier") is None
    assert kind_of("sklearn..ensemble", "RandomForestClassifier") is None


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (start(4) + b"\x82\x01.", "pickle-opcode"),
        (start(4) + b"K\x01K\x02\x93.", "pickle-opcode"),
        (start(5) + b"\x97.", "pickle-opcode"),
        (start(4) + text("x") + b"Q.", "pickle-persistent"),
        (start(4) + name("collections", "OrderedDict") + b"}b.", "pickle-call"),
        (start(4) + name("builtins", "dict") + b")R)R.", "pickle-call"),
        (start(4) + name("_codecs", "encode") + strings(("x", "rot13")) + b"R.", "pickle-call"),
    ],
)
def test_what_no_framework_writes_is_reported(data: bytes, rule: str) -> None:
    assert [item.rule for item in _run(data)[0].findings] == [rule]


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\x80\x04", b"\x80\x07.", b".", b"h\x05.", b"\xf0.", b"(.", b"R.", b"X\xff\xff\xff\x7f.",
        b"\x80\x04\x95" + struct.pack("<Q", 99) + b"N.", b"\x80\x04\x95" + struct.pack("<Q", 2) + b"\x8c\x05hello.",
    ],
)  # fmt: skip
def test_what_python_could_not_read_is_an_error(data: bytes) -> None:
    with pytest.raises(PickleError):
        _run(data)


def test_work_is_bounded() -> None:
    with pytest.raises(LimitError):
        _run(b"N0" * 6000 + b"N.")


def test_storages_of_tensors_are_known_by_their_persistent_names() -> None:
    storage = b"(" + text("storage") + name("torch", "FloatStorage") + text("0") + text("cpu") + b"K\x02tQ."
    look, machine = _run(start(4) + storage, torch="zip")
    assert (look.findings, machine.storages) == ([], {"0": ("FloatStorage", 2)})
