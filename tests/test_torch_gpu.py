"""Sealed weights on a GPU: the same bits as a plain load there, nothing left of a failed one."""

from pathlib import Path

import pytest

import palladion.torch
from palladion.errors import TamperError
from tests.test_torch import SEGMENT, host_in, sealed_tensors, seeded

torch_ = pytest.importorskip("torch", reason="this needs the torch extra")
pytestmark = [
    pytest.mark.torch,
    pytest.mark.skipif(not torch_.cuda.is_available(), reason="no GPU is here"),
]


def test_tensors_come_to_the_gpu_bit_for_bit_and_are_wiped_there(tmp_path: Path) -> None:
    tensors = {"large": seeded(1200, 700), "half": seeded(50).to(torch_.bfloat16), "bytes": torch_.arange(9)}
    weights = palladion.torch.load(sealed_tensors(tmp_path, tensors), host=host_in(tmp_path), device="cuda")
    held = dict(weights)
    assert {name: tensor.device.type for name, tensor in held.items()} == dict.fromkeys(tensors, "cuda")
    assert all(torch_.equal(held[name].cpu(), tensor) for name, tensor in tensors.items())
    weights.close()
    assert not any(tensor.any() for tensor in held.values())


def test_a_module_on_the_gpu_computes_what_the_plain_one_does(tmp_path: Path) -> None:
    plain, here = (torch_.nn.Linear(900, 700) for _ in range(2))
    here = here.to("cuda")
    sealed = sealed_tensors(tmp_path, plain.state_dict())
    palladion.torch.load_into(here, sealed, host=host_in(tmp_path))
    assert all(torch_.equal(here.state_dict()[name].cpu(), tensor) for name, tensor in plain.state_dict().items())


def test_a_module_without_memory_gets_it_on_the_gpu(tmp_path: Path) -> None:
    plain = torch_.nn.Linear(900, 700)
    with torch_.device("meta"):
        here = torch_.nn.Linear(900, 700)
    sealed = sealed_tensors(tmp_path, plain.state_dict())
    palladion.torch.load_into(here, sealed, host=host_in(tmp_path), device="cuda", dtype=torch_.float16)
    assert (here.weight.device.type, here.weight.dtype) == ("cuda", torch_.float16)
    assert torch_.equal(here.weight.cpu(), plain.weight.half())


def test_damage_in_the_middle_leaves_zeros_on_the_gpu(tmp_path: Path) -> None:
    plain, here = (torch_.nn.Linear(900, 700) for _ in range(2))
    here = here.to("cuda")
    sealed = sealed_tensors(tmp_path, plain.state_dict())
    damaged = bytearray(sealed.read_bytes())
    damaged[2 * SEGMENT + 9] ^= 1
    sealed.write_bytes(damaged)
    with pytest.raises(TamperError):
        palladion.torch.load_into(here, sealed, host=host_in(tmp_path))
    assert not any(tensor.any() for tensor in here.state_dict().values())
