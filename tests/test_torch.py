"""Sealed weights in PyTorch: the same bits as a plain load, nothing half loaded, errors before anything is written."""

import copy
import subprocess
import sys
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import palladion.torch
from palladion.clock import ManualClock
from palladion.errors import ConflictError, FormatError, KeysError, MissingExtraError, TamperError
from palladion.host.host import Host
from palladion.seal.layout import PARAMETERS
from tests.seal.factories import CREATED, Parts, Party

if TYPE_CHECKING:
    import torch

torch_ = pytest.importorskip("torch", reason="this needs the torch extra")
safetensors_ = pytest.importorskip("safetensors.torch", reason="this needs safetensors")
pytestmark = pytest.mark.torch

PARTY = Party()
SEGMENT = PARAMETERS.capacity


def host_in(folder: Path) -> Host:
    """A host that opens what `sealed_tensors` seals."""
    return Host(folder / "host", ManualClock(CREATED), identities=[PARTY.identity], publishers=PARTY.publishers)


def _save(tensors: "Mapping[str, torch.Tensor]") -> bytes:
    saved: bytes = safetensors_.save({name: tensor.clone() for name, tensor in tensors.items()})
    return saved


def sealed_tensors(folder: Path, tensors: "Mapping[str, torch.Tensor]", *, version: int = 3) -> Path:
    """A sealed file of these tensors."""
    files = [("model.safetensors", _save(tensors))]
    return PARTY.seal(folder / f"{version}.sealed", files, kind="safetensors", version=version)


def seeded(*shape: int, seed: int = 0) -> "torch.Tensor":
    """Normal numbers of this shape, the same each time."""
    tensor: torch.Tensor = torch_.randn(*shape, generator=torch_.Generator().manual_seed(seed))
    return tensor


def _every_type() -> "dict[str, torch.Tensor]":
    names = "bool uint8 int8 uint16 int16 uint32 int32 uint64 int64 float16 bfloat16 float32 float64 complex64"
    names += " float8_e4m3fn float8_e4m3fnuz float8_e5m2 float8_e5m2fnuz float8_e8m0fnu"
    bits = torch_.randint(0, 2, (6, 64), dtype=torch_.uint8, generator=torch_.Generator().manual_seed(1))
    tensors = {name: bits.view(getattr(torch_, name)).clone() for name in names.split()}
    return tensors | {"float4": bits.view(torch_.float4_e2m1fn_x2), "empty": torch_.empty(0, 4), "scalar": bits[0, 0]}


def _bits(tensor: "torch.Tensor") -> bytes:
    return bytes(tensor.detach().reshape(-1).view(torch_.uint8).numpy())


def _assert_same(got: "Mapping[str, torch.Tensor]", expected: "Mapping[str, torch.Tensor]") -> None:
    assert got.keys() == expected.keys()
    for name, tensor in expected.items():
        assert (got[name].dtype, got[name].shape) == (tensor.dtype, tensor.shape), name
        assert not tensor.numel() or _bits(got[name]) == _bits(tensor), name


class _Net(torch_.nn.Module):  # type: ignore[name-defined, misc]
    """Linear layers larger than a segment, small parameters that share one, a buffer, and tied weights."""

    def __init__(self, width: int = 700) -> None:
        super().__init__()
        self.embed = torch_.nn.Embedding(50, width)
        self.deep = torch_.nn.Linear(width, width)
        self.norm = torch_.nn.BatchNorm1d(width)
        self.head = torch_.nn.Linear(width, 50, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: "torch.Tensor") -> Any:
        return self.head(self.norm(self.deep(self.embed(tokens))))


def _net(seed: int, width: int = 700) -> _Net:
    torch_.manual_seed(seed)
    net: _Net = _Net(width).eval()
    net.norm.running_mean.copy_(seeded(width, seed=seed))
    return net


def _state(net: _Net) -> "dict[str, torch.Tensor]":
    """As models are saved: tied weights once."""
    return {name: tensor for name, tensor in net.state_dict().items() if name != "head.weight"}


TOKENS = torch_.arange(12)


# what is loaded


def test_pytorch_is_what_the_module_imports_and_not_itself() -> None:
    code = (
        "import palladion.torch, torch\n"
        "assert palladion.torch._torch() is torch, palladion.torch._torch()\n"
        "assert palladion.torch is not torch and hasattr(torch, 'nn')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)


def test_importing_the_module_does_not_import_pytorch() -> None:
    code = "import sys, palladion.torch; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)


def test_without_pytorch_the_install_line_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    for load in (palladion.torch.load, palladion.torch.lazy):
        with pytest.raises(MissingExtraError) as refused:
            load(tmp_path / "x")
        assert refused.value.hints == ("pip install 'palladion[torch]'",)


def test_tensors_of_every_type_come_bit_for_bit(tmp_path: Path) -> None:
    expected = _every_type()
    path = sealed_tensors(tmp_path, expected)
    (tmp_path / "plain").write_bytes(_save(expected))
    plain = safetensors_.load_file(tmp_path / "plain")
    _assert_same(palladion.torch.load(path, host=host_in(tmp_path)), plain)
    with palladion.torch.lazy(path, host=host_in(tmp_path)) as lazy:
        _assert_same(lazy, plain)
        assert {name: (lazy.dtype(name), lazy.shape(name)) for name in lazy} == {
            name: (tensor.dtype, tensor.shape) for name, tensor in plain.items()
        }


def test_a_type_that_pytorch_lacks_is_named(tmp_path: Path) -> None:
    header = b'{"odd":{"dtype":"F6_E2M3","shape":[4],"data_offsets":[0,3]}}'
    data = len(header).to_bytes(8, "little") + header + bytes(3)
    path = PARTY.seal(tmp_path / "x", [("m.safetensors", data)], kind="safetensors")
    with pytest.raises(FormatError, match=r"'odd' is of the type float6_e2m3fn"):
        palladion.torch.load(path, host=host_in(tmp_path))


def test_large_tensors_come_whole_over_the_borders_of_segments(tmp_path: Path) -> None:
    expected = {"large": seeded(3 * SEGMENT // 4 + 5), "small": seeded(3, seed=1), "next": seeded(SEGMENT, seed=2)}
    path = sealed_tensors(tmp_path, expected)
    _assert_same(palladion.torch.load(path, host=host_in(tmp_path)), expected)


def test_tensors_can_be_written_to_and_lie_where_processors_like_them(tmp_path: Path) -> None:
    # an odd number of bytes before it: in the file the second is not aligned
    header = (
        b'{"a":{"dtype":"I8","shape":[3],"data_offsets":[0,3]},"b":{"dtype":"F32","shape":[2],"data_offsets":[3,11]}}'
    )
    data = len(header).to_bytes(8, "little") + header + bytes(3) + torch_.tensor([1.0, 2.0]).numpy().tobytes()
    weights = palladion.torch.load(
        PARTY.seal(tmp_path / "x", [("m.safetensors", data)], kind="safetensors"), host=host_in(tmp_path)
    )
    assert weights["b"].data_ptr() % 64 == 0
    weights["b"].add_(1)
    assert weights["b"].tolist() == [2.0, 3.0]


def test_memory_stays_as_long_as_a_tensor_does(tmp_path: Path) -> None:
    expected = seeded(1000)
    held = palladion.torch.load(sealed_tensors(tmp_path, {"a": expected, "b": seeded(1000)}), host=host_in(tmp_path))[
        "a"
    ]
    assert torch_.equal(held, expected)


def test_closing_wipes_tensors_that_are_still_held(tmp_path: Path) -> None:
    with palladion.torch.load(sealed_tensors(tmp_path, {"a": seeded(9)}), host=host_in(tmp_path)) as weights:
        held = weights["a"]
        assert held.any()
        assert weights.info.header.version == 3
        assert repr(weights) == "<Weights 1 of fraud>"
    assert not held.any()
    assert not weights
    weights.close()


def test_memory_goes_with_what_is_taken_out_and_let_go(tmp_path: Path) -> None:
    large = seeded(100_000)
    weights = palladion.torch.load(sealed_tensors(tmp_path, {"a": large, "b": large}), host=host_in(tmp_path))
    gone = weakref.ref(weights.pop("a"))
    assert gone() is None
    kept = weights.pop("b")
    weights.close()
    assert not kept.any()


def test_tensors_on_the_meta_device_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="hold no numbers"):
        palladion.torch.load(sealed_tensors(tmp_path, {"a": seeded(2)}), device="meta", host=host_in(tmp_path))


def test_a_truth_value_of_two_is_refused(tmp_path: Path) -> None:
    header = b'{"mask":{"dtype":"BOOL","shape":[2],"data_offsets":[0,2]}}'
    data = len(header).to_bytes(8, "little") + header + b"\1\2"
    path = PARTY.seal(tmp_path / "x", [("m.safetensors", data)], kind="safetensors")
    with pytest.raises(FormatError, match="'mask' is bool and holds"):
        palladion.torch.load(path, host=host_in(tmp_path))
    with palladion.torch.lazy(path, host=host_in(tmp_path)) as lazy, pytest.raises(FormatError, match="'mask' is bool"):
        lazy["mask"]


def test_the_order_of_the_checks_is_kept(tmp_path: Path) -> None:
    old, new = (sealed_tensors(tmp_path, {"a": seeded(2)}, version=version) for version in (3, 4))
    host, stranger = host_in(tmp_path), Party()
    for open_it in (palladion.torch.load, palladion.torch.lazy):
        # the publisher before the host's wishes and the key
        with pytest.raises(TamperError):
            open_it(
                old,
                host=Host(
                    tmp_path / "h", ManualClock(CREATED), publishers=stranger.publishers, identities=[stranger.identity]
                ),
            )
        with pytest.raises(KeysError):
            open_it(
                old,
                host=Host(
                    tmp_path / "h", ManualClock(CREATED), publishers=PARTY.publishers, identities=[stranger.identity]
                ),
            )
    assert not (tmp_path / "h" / "seen.json").exists()
    palladion.torch.load(new, host=host)
    # refused before any key is touched: the stranger has none
    strange = Host(host.folder, ManualClock(CREATED), publishers=PARTY.publishers, identities=[stranger.identity])
    for open_it in (palladion.torch.load, palladion.torch.lazy):
        with pytest.raises(ConflictError, match="older than version 4"):
            open_it(old, host=strange)
        assert open_it(old, host=host, allow_older=True)
    with pytest.raises(ConflictError, match="older than version 4"):
        palladion.torch.load_into(torch_.nn.Module(), old, host=strange)


# one at a time


def test_a_tensor_is_read_when_it_is_asked_for_and_damage_elsewhere_is_not_noticed(tmp_path: Path) -> None:
    tensors = {f"t{number}": seeded(SEGMENT // 4, seed=number) for number in range(4)}
    parts = Parts.of(sealed_tensors(tmp_path, tensors))
    parts.segments[3] = bytes(len(parts.segments[3]))
    path = parts.write(tmp_path / "damaged")
    with palladion.torch.lazy(path, host=host_in(tmp_path)) as lazy:
        assert torch_.equal(lazy["t0"], tensors["t0"])
        assert repr(lazy) == "<LazyWeights 4 of fraud>"
        with pytest.raises(TamperError, match="segment 3"):
            lazy["t3"]
        with pytest.raises(KeyError):
            lazy["t4"]


def test_rows_are_read_without_the_others(tmp_path: Path) -> None:
    tensor = seeded(2100, 1000)
    parts = Parts.of(sealed_tensors(tmp_path, {"a": tensor}))
    middle = len(parts.segments) // 2
    parts.segments[middle] = bytes(len(parts.segments[middle]))
    with palladion.torch.lazy(parts.write(tmp_path / "damaged"), host=host_in(tmp_path)) as lazy:
        assert torch_.equal(lazy.rows("a", 0, 700), tensor[:700])
        assert torch_.equal(lazy.rows("a", 1500, 2100), tensor[1500:])
        assert lazy.rows("a", 5, 5).shape == (0, 1000)
        with pytest.raises(TamperError):
            lazy.rows("a", 700, 1500)
        with pytest.raises(ValueError, match="rows 0 to 2101"):
            lazy.rows("a", 0, 2101)


def test_a_tensor_that_several_threads_read_comes_whole(tmp_path: Path) -> None:
    tensor = torch_.arange(5 * 2**20, dtype=torch_.int32)  # 20 MiB
    with palladion.torch.lazy(
        sealed_tensors(tmp_path, {"b": torch_.ones(3), "a": tensor}), host=host_in(tmp_path)
    ) as lazy:
        assert torch_.equal(lazy["a"], tensor)


# into a module


def test_a_module_computes_what_the_plain_one_computes(tmp_path: Path) -> None:
    plain, net = _net(1), _net(2)
    before = net.deep.weight.data_ptr()
    loaded = palladion.torch.load_into(net, sealed_tensors(tmp_path, _state(plain)), host=host_in(tmp_path))
    assert (loaded.missing, loaded.unexpected) == ((), ())
    assert loaded.info.header.model == "fraud"
    assert torch_.equal(net(TOKENS), plain(TOKENS))
    assert net.deep.weight.data_ptr() == before
    assert net.head.weight is net.embed.weight


def test_a_module_on_the_meta_device_gets_its_memory_here(tmp_path: Path) -> None:
    plain = _net(1)
    path = sealed_tensors(tmp_path, _state(plain))
    with torch_.device("meta"):
        net = _Net().eval()
    net.deep.weight.requires_grad_(False)
    palladion.torch.load_into(net, path, host=host_in(tmp_path))
    assert torch_.equal(net(TOKENS), plain(TOKENS))
    assert net.head.weight is net.embed.weight
    assert (net.deep.weight.requires_grad, net.deep.bias.requires_grad) == (False, True)
    assert isinstance(net.deep.weight, torch_.nn.Parameter)


def test_floats_are_rounded_to_those_of_the_module_as_load_state_dict_does(tmp_path: Path) -> None:
    path = sealed_tensors(tmp_path, _state(_net(1)))
    ours, reference = _net(2).to(torch_.bfloat16), _net(3).to(torch_.bfloat16)
    palladion.torch.load_into(ours, path, host=host_in(tmp_path))
    reference.load_state_dict(_net(1).state_dict())
    _assert_same(ours.state_dict(), reference.state_dict())
    with torch_.device("meta"):
        fresh = _Net().eval()
    palladion.torch.load_into(fresh, path, dtype=torch_.bfloat16, host=host_in(tmp_path))
    _assert_same(fresh.state_dict(), reference.state_dict())


def test_parameters_that_are_not_in_one_piece_are_filled_all_the_same(tmp_path: Path) -> None:
    expected = seeded(4, 6)
    net = torch_.nn.Module()
    net.a = torch_.nn.Parameter(torch_.zeros(6, 4).t())
    palladion.torch.load_into(net, sealed_tensors(tmp_path, {"a": expected}), host=host_in(tmp_path))
    assert torch_.equal(net.a, expected)


def test_packed_integers_and_their_scales_come_as_they_are(tmp_path: Path) -> None:
    generator = torch_.Generator().manual_seed(3)
    packed = {
        "qweight": torch_.randint(-(2**31), 2**31 - 1, (64, 8), dtype=torch_.int32, generator=generator),
        "qzeros": torch_.randint(-(2**31), 2**31 - 1, (4, 8), dtype=torch_.int32, generator=generator),
        "scales": seeded(4, 64).to(torch_.float16),
        "g_idx": torch_.arange(64, dtype=torch_.int32),
        "weight_scale_inv": seeded(2, 2),
        "weight": seeded(64, 64).to(torch_.float8_e4m3fn),
    }
    net = torch_.nn.Module()
    for name, tensor in packed.items():
        net.register_buffer(name, torch_.zeros_like(tensor))
    palladion.torch.load_into(net, sealed_tensors(tmp_path, packed), host=host_in(tmp_path))
    _assert_same(net.state_dict(), packed)


@pytest.mark.parametrize(("stored", "wanted"), [("int32", "float32"), ("float8_e4m3fn", "float16"), ("int8", "uint8")])
def test_numbers_of_another_kind_are_refused(tmp_path: Path, stored: str, wanted: str) -> None:
    net = torch_.nn.Module()
    net.register_buffer("a", torch_.zeros(4, dtype=getattr(torch_, wanted)))
    path = sealed_tensors(tmp_path, {"a": torch_.ones(4).to(getattr(torch_, stored))})
    with pytest.raises(ConflictError, match=rf"'a': torch\.{stored} in the file, torch\.{wanted} in the module"):
        palladion.torch.load_into(net, path, strict=False, host=host_in(tmp_path))


def test_names_and_shapes_that_do_not_fit_are_listed_before_anything_is_written(tmp_path: Path) -> None:
    net = _net(2)
    before = copy.deepcopy(net.state_dict())
    odd = _state(_net(1)) | {"extra": seeded(2), "deep.bias": seeded(3)}
    del odd["norm.weight"]
    path = sealed_tensors(tmp_path, odd)
    with pytest.raises(ConflictError) as refused:
        palladion.torch.load_into(net, path, host=host_in(tmp_path))
    for told in ("'deep.bias': [3] in the file, [700] in the module", "missing in the file: 'norm.weight'"):
        assert told in refused.value.message
    assert "not in the module: 'extra'" in refused.value.message
    assert "head.weight" not in refused.value.message  # tied to what is there
    _assert_same(net.state_dict(), before)
    assert not (tmp_path / "host" / "seen.json").exists()


def test_what_is_left_out_is_told_if_that_is_allowed(tmp_path: Path) -> None:
    net, plain = _net(2), _net(1)
    kept = net.norm.weight.clone()
    part = _state(plain) | {"extra": seeded(2)}
    del part["norm.weight"]
    loaded = palladion.torch.load_into(net, sealed_tensors(tmp_path, part), strict=False, host=host_in(tmp_path))
    assert (loaded.missing, loaded.unexpected) == (("norm.weight",), ("extra",))
    assert torch_.equal(net.norm.weight, kept)
    assert torch_.equal(net.deep.weight, plain.deep.weight)


def test_a_prefix_picks_a_part(tmp_path: Path) -> None:
    whole = {
        f"{part}.{name}": tensor for part, seed in (("a", 1), ("b", 2)) for name, tensor in _state(_net(seed)).items()
    }
    net = _net(3)
    palladion.torch.load_into(net, sealed_tensors(tmp_path, whole), prefix="b.", host=host_in(tmp_path))
    _assert_same(net.state_dict(), _net(2).state_dict())


def test_of_two_names_for_one_parameter_the_last_counts_as_in_load_state_dict(tmp_path: Path) -> None:
    both = _net(1).state_dict() | {"head.weight": seeded(50, 700, seed=9)}
    ours, reference = _net(2), _net(3)
    palladion.torch.load_into(ours, sealed_tensors(tmp_path, both), host=host_in(tmp_path))
    reference.load_state_dict(both)
    _assert_same(ours.state_dict(), reference.state_dict())


def test_a_module_that_gives_out_copies_is_refused(tmp_path: Path) -> None:
    net = _net(1)
    net._register_state_dict_hook(lambda _module, state, _prefix, _local: {k: v.clone() for k, v in state.items()})
    with pytest.raises(ConflictError, match="gives out a copy"):
        palladion.torch.load_into(net, sealed_tensors(tmp_path, _state(_net(2))), host=host_in(tmp_path))


def test_a_module_that_has_not_made_its_parameters_is_refused(tmp_path: Path) -> None:
    path = sealed_tensors(tmp_path, {"weight": seeded(2, 3), "bias": seeded(2)})
    with pytest.raises(ConflictError, match="'weight': the module has not made it yet"):
        palladion.torch.load_into(torch_.nn.LazyLinear(2), path, host=host_in(tmp_path))


def test_damage_in_the_middle_leaves_zeros_and_no_half_of_a_model(tmp_path: Path) -> None:
    parts = Parts.of(sealed_tensors(tmp_path, _state(_net(1))))
    last = len(parts.segments) - 1
    parts.segments[last] = bytes([parts.segments[last][0]]) + bytes(len(parts.segments[last]) - 1)
    path = parts.write(tmp_path / "damaged")
    net = _net(2)
    with pytest.raises(TamperError, match=f"segment {last} of"):
        palladion.torch.load_into(net, path, host=host_in(tmp_path))
    assert not any(tensor.any() for tensor in net.state_dict().values())
    with torch_.device("meta"):
        fresh = _Net()
    with pytest.raises(TamperError):
        palladion.torch.load_into(fresh, path, host=host_in(tmp_path))
    assert all(parameter.is_meta for parameter in fresh.parameters())
    with pytest.raises(TamperError):
        palladion.torch.load(path, host=host_in(tmp_path))
    assert not (tmp_path / "host" / "seen.json").exists()


def test_a_gradient_computed_before_a_load_is_not_mixed_with_weights_after_it(tmp_path: Path) -> None:
    net = _net(2)
    loss = net(TOKENS).sum()
    palladion.torch.load_into(net, sealed_tensors(tmp_path, _state(_net(1))), host=host_in(tmp_path))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
