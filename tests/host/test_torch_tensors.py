"""Tensors made for sealed bytes: where they lie, what becomes of them, and types that PyTorch has or lacks.

tests/test_torch.py loads through them.
"""

import gc
import weakref

import pytest

from palladion.errors import FormatError
from palladion.host.torch_tensors import PRIVATE_BYTES_MIN, Form, Fresh, form_of, misfit, target_of
from palladion.model.safetensors import Span
from palladion.model.tensors import DTYPES

torch = pytest.importorskip("torch", reason="this needs the torch extra")
pytestmark = pytest.mark.torch

CPU = torch.device("cpu")


def _span(dtype: str, *shape: int) -> Span:
    return Span(DTYPES[dtype], shape, 0, DTYPES[dtype].byte_count(shape))


@pytest.mark.parametrize("size", [3, PRIVATE_BYTES_MIN])
def test_fresh_tensors_hold_what_is_written_and_zeros_after_a_wipe(size: int) -> None:
    fresh = Fresh({"a": Form(torch.uint8, (size,), size), "empty": Form(torch.float32, (0, 4), 0)}, CPU)
    target = fresh.targets["a"]
    target.room(1, 3)[:] = b"\7\7"
    target.written(1, 3)
    held = fresh.tensors["a"]
    assert held[1:3].tolist() == [7, 7]
    assert fresh.tensors["empty"].shape == (0, 4)
    fresh.wipe()
    assert not held[1:3].any()
    assert not fresh.tensors


def test_memory_goes_with_the_last_tensor_and_not_when_the_collector_comes() -> None:
    fresh = Fresh({"a": Form(torch.uint8, (PRIVATE_BYTES_MIN,), PRIVATE_BYTES_MIN)}, CPU)
    gone = weakref.ref(fresh)
    gc.disable()
    try:
        del fresh
        assert gone() is None
    finally:
        gc.enable()


def test_what_has_to_be_rounded_is_gathered_in_any_order_first() -> None:
    stored = torch.arange(6, dtype=torch.float32)
    fresh = Fresh({"a": Form(torch.float32, (6,), 24)}, CPU, torch.float16)
    target, data = fresh.targets["a"], stored.numpy().tobytes()
    for begin, end in ((12, 24), (0, 5), (5, 12)):
        target.room(begin, end)[:] = data[begin:end]
        target.written(begin, end)
    assert fresh.tensors["a"].dtype == torch.float16
    assert torch.equal(fresh.tensors["a"], stored.half())


def test_a_tensor_in_pieces_gets_its_numbers_when_all_have_come() -> None:
    tensor = torch.zeros(2, 3).t()
    target = target_of(tensor, Form(torch.float32, (3, 2), 24))
    target.room(0, 24)[:] = torch.arange(6.0).numpy().tobytes()
    assert not tensor.any()
    target.written(0, 24)
    assert tensor.tolist() == [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]


def test_every_type_has_its_form_or_an_error() -> None:
    assert form_of(_span("bfloat16", 2, 3), "x") == Form(torch.bfloat16, (2, 3), 12)
    assert form_of(_span("float4_e2m1fn", 2, 8), "x") == Form(torch.float4_e2m1fn_x2, (2, 4), 8)
    for dtype, shape in (("float6_e3m2fn", (4,)), ("float4_e2m1fn", (2, 1)), ("int4", (2,))):
        with pytest.raises(FormatError, match=f"x is of the type {dtype}, which this PyTorch cannot hold"):
            form_of(_span(dtype, *shape), "x")


@pytest.mark.parametrize(
    ("stored", "wanted", "told"),
    [
        ("float32", "bfloat16", ""),
        ("float64", "float32", ""),
        ("int32", "int32", ""),
        ("int32", "int64", "torch.int32 in the file, torch.int64 in the module"),
        ("int8", "float32", "torch.int8 in the file, torch.float32 in the module"),
        ("float8_e4m3fn", "float32", "torch.float8_e4m3fn in the file, torch.float32 in the module"),
        ("complex64", "float32", "torch.complex64 in the file, torch.float32 in the module"),
    ],
)
def test_floats_are_rounded_and_nothing_else_is(stored: str, wanted: str, told: str) -> None:
    form = form_of(_span(stored, 2), "x")
    assert misfit(torch.zeros(2, dtype=getattr(torch, wanted)), form) == told
    assert misfit(torch.zeros(3, dtype=form.dtype), form) == "[2] in the file, [3] in the module"
    assert misfit({}, form) == "a tensor in the file, dict in the module"


def test_the_meta_device_is_refused_unless_there_is_nothing_to_make() -> None:
    Fresh({}, torch.device("meta"))
    with pytest.raises(ValueError, match="hold no numbers"):
        Fresh({"a": Form(torch.float32, (1,), 4)}, torch.device("meta"))
