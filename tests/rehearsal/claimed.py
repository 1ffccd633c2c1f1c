"""Tensors that say they are on a CUDA device, and have their numbers in host memory.

The engine's CUDA path runs on them with real numbers. What a device would not do fails: operators on tensors
of both sides. What a device would make slow is counted: waits of the host, copies to and from it, launches.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

from realrl.ops.segments import Bounds
from tests.rehearsal import loops, signatures
from tests.rehearsal.device import Library

DEVICE = torch.device("cuda", 0)
_WAITS = frozenset(
    "_local_scalar_dense nonzero masked_select unique_dim _unique2 unique_consecutive bincount equal"
    " is_nonzero multinomial".split()
)
"""Operators whose result the host must know to go on."""
_FREE = frozenset(
    "empty empty_like empty_strided new_empty new_empty_strided detach alias lift_fresh".split()
)
"""Operators that launch nothing."""


_WITHOUT_ORDER = frozenset("bincount put_ histc kthvalue median scatter_reduce resize_".split())
"""What of that `torch.use_deterministic_algorithms` refuses on CUDA could be met here, by its documentation;
cumulative sums of floats, too."""


@dataclass
class Ledger:
    """What a device was asked to do."""

    waits: list[str] = field(default_factory=list)
    """What made the host wait, each time."""
    uploads: list[int] = field(default_factory=list)
    """Bytes of each copy to the device that the host did not wait for."""
    downloads: list[int] = field(default_factory=list)
    """Bytes of each copy from it; the host waited for them, so they are in `waits` too."""
    launches: Counter[str] = field(default_factory=Counter)
    """How often each operator ran, views and allocations left out."""


_ledger = Ledger()
_pinned: set[int] = set()
"""Addresses of storages that are pinned."""
_library: Library | None = None
_kept: list[torch.UntypedStorage] = []
"""Storages that kernels may access; none is freed, so that no address is used again."""


class OnDevice(Tensor):
    """A tensor of the pretended device around one in host memory."""

    @staticmethod
    def __new__(cls, inner: Tensor) -> OnDevice:
        return Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=inner.device,
        )

    def __init__(self, inner: Tensor) -> None:
        self.inner = inner
        storage = inner.untyped_storage()
        if _library is not None and storage.nbytes():
            _kept.append(storage)
            _library.cdll.rehearsal_add_tensor(storage.data_ptr(), storage.nbytes())

    __torch_function__ = torch._C._disabled_torch_function_impl

    device = property(lambda self: DEVICE)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)

    def data_ptr(self) -> int:
        return self.inner.data_ptr()

    def record_stream(self, stream: Any) -> None:
        pass

    @classmethod
    def __torch_dispatch__(cls, operator, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        _check_sides(operator, args, kwargs)
        _note(operator, args, kwargs)
        run = _STAND_INS.get(str(operator), operator)
        results = tree_map(_wrapped, run(*tree_map(_inner, args), **tree_map(_inner, kwargs)))
        return return_and_correct_aliasing(operator, args, kwargs, results)


def _inner(x: Any) -> Any:
    return x.inner if isinstance(x, OnDevice) else x


def _wrapped(x: Any) -> Any:
    return OnDevice(x) if isinstance(x, Tensor) and not isinstance(x, OnDevice) else x


def _check_sides(operator, args, kwargs) -> None:
    """As CUDA has it: of the host's tensors, only single numbers may be beside those of the device."""
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    strangers = [x for x in tensors if not isinstance(x, OnDevice) and x.dim()]
    if strangers:
        raise RuntimeError(f"{operator}: expected all tensors on cuda:0, got {len(strangers)} on the host")


def _note(operator, args, kwargs) -> None:
    packet = operator.overloadpacket.__name__
    _check_order(packet, args)
    signatures.check(str(operator), kwargs)
    waits = packet in _WAITS
    waits |= packet in ("index", "index_put", "index_put_") and _has_mask(args[1])
    waits |= packet == "repeat_interleave" and kwargs.get("output_size") is None
    if waits:
        _ledger.waits.append(str(operator))
    if packet not in _FREE and not operator.is_view:
        _ledger.launches[packet] += 1


def _check_order(packet: str, args) -> None:
    """As PyTorch does on a device, where operators whose sums have no fixed order are ruled out."""
    if not torch.are_deterministic_algorithms_enabled():
        return
    is_float_sum = packet == "cumsum" and args[0].is_floating_point()
    if is_float_sum or packet in _WITHOUT_ORDER:
        raise RuntimeError(f"{packet} has no deterministic implementation")


def _has_mask(indices) -> bool:
    return any(x is not None and x.dtype in (torch.bool, torch.uint8) for x in indices)


def _flash_forward(q, k, v, queries, keys, longest_q, longest_k, dropout, is_causal, debug, **options):
    bounds, is_causal, window = _as_loops_take_it(queries, keys, longest_q, longest_k, is_causal, options)
    wide = (x.double() for x in (q, k, v))
    out, lse = loops.forward(*wide, bounds, options["scale"], is_causal=is_causal, window=window)
    unused = torch.empty(0)
    return out.to(q.dtype), lse.float(), unused, unused, unused


def _flash_backward(
    dout, q, k, v, out, lse, queries, keys, longest_q, longest_k, dropout, is_causal, *random, **options
):
    bounds, is_causal, window = _as_loops_take_it(queries, keys, longest_q, longest_k, is_causal, options)
    wide = (x.double() for x in (dout, q, k, v, out, lse))
    found = loops.backward(*wide, bounds, options["scale"], is_causal=is_causal, window=window)
    return tuple(x.to(q.dtype) for x in found)


def _as_loops_take_it(queries, keys, longest_q, longest_k, is_causal, options):
    left, right = options["window_size_left"], options["window_size_right"]
    assert right == (0 if is_causal or left >= 0 else -1)
    window = None if left < 0 else left + 1
    return Bounds(queries, keys, longest_q, longest_k), is_causal or window is not None, window


def _add_product(total, a, b, out_dtype, *, out):
    return out.copy_(total + a.to(out_dtype) @ b.to(out_dtype))


_STAND_INS: dict[str, Callable] = {
    "aten._flash_attention_forward.default": _flash_forward,
    "aten._flash_attention_backward.default": _flash_backward,
    "aten.addmm.dtype_out": _add_product,
}
"""What runs in the place of operators that only CUDA has."""


class _Factories(TorchFunctionMode):
    """Makes what is made for the device, and moves what is moved to and from it."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        name = getattr(function, "__name__", "")
        if name in _MOVES:
            return _MOVES[name](function, args, kwargs)
        is_pinned = kwargs.pop("pin_memory", False)
        on_device = _is_cuda(kwargs.get("device"))
        if on_device:
            kwargs["device"] = "cpu"
        if on_device and name in ("tensor", "as_tensor"):
            _ledger.waits.append(f"torch.{name} on the device")
        result = function(*args, **kwargs)
        if is_pinned:
            _pinned.add(result.untyped_storage().data_ptr())
        return _wrapped(result) if on_device else result


def _is_cuda(device: Any) -> bool:
    return device is not None and torch.device(device).type == "cuda"


def _to(function, args, kwargs):
    x, *rest = args
    places = [a for a in (*rest, kwargs.get("device")) if isinstance(a, (str, torch.device))]
    if not places or _is_cuda(places[0]) == isinstance(x, OnDevice):
        others = [a for a in rest if not isinstance(a, (str, torch.device))]
        return x.to(*others, **{k: v for k, v in kwargs.items() if k != "device"}) if others or kwargs else x
    dtypes = [a for a in (*rest, kwargs.get("dtype")) if isinstance(a, torch.dtype)]
    moved = _uploaded(x, kwargs.get("non_blocking", False)) if _is_cuda(places[0]) else _downloaded(x)
    return moved.to(dtypes[0]) if dtypes else moved


def _uploaded(x: Tensor, non_blocking: bool) -> Tensor:
    is_pinned = x.untyped_storage().data_ptr() in _pinned
    if non_blocking and is_pinned:
        _ledger.uploads.append(x.nbytes)
    else:
        _ledger.waits.append(f"upload of {x.nbytes} bytes, {'waited for' if is_pinned else 'not pinned'}")
    return OnDevice(x.clone())


def _downloaded(x: OnDevice) -> Tensor:
    _ledger.downloads.append(x.nbytes)
    _ledger.waits.append(f"download of {x.nbytes} bytes")
    return x.detach().inner.clone()


def _copy(function, args, kwargs):
    target, source = args[:2]
    if isinstance(target, OnDevice) == isinstance(source, OnDevice):
        return function(*args, **kwargs)
    non_blocking = kwargs.get("non_blocking", False)
    if isinstance(target, OnDevice):
        return target.copy_(_uploaded(source, non_blocking))
    if non_blocking and target.untyped_storage().data_ptr() in _pinned:
        _ledger.downloads.append(target.nbytes)
        return target.copy_(source.detach().inner)
    return target.copy_(_downloaded(source))


def _rms_norm(function, args, kwargs):
    if not isinstance(args[0], OnDevice):
        return function(*args, **kwargs)
    return _FusedNorm.apply(*args, kwargs["weight"], kwargs["eps"])


class _FusedNorm(torch.autograd.Function):
    """One operator a pass, as CUDA has it; the host's PyTorch makes it of some ten."""

    @staticmethod
    def forward(ctx, x, shape, weight, eps):
        _ledger.launches["_fused_rms_norm"] += 1
        ctx.job = x.inner, shape, weight.inner, eps
        return OnDevice(torch.nn.functional.rms_norm(*ctx.job))

    @staticmethod
    def backward(ctx, gradient):
        _ledger.launches["_fused_rms_norm_backward"] += 1
        x, shape, weight, eps = ctx.job
        with torch.enable_grad():
            x, weight = (t.detach().requires_grad_() for t in (x, weight))
            y = torch.nn.functional.rms_norm(x, shape, weight, eps)
        of_x, of_weight = torch.autograd.grad(y, (x, weight), gradient.inner)
        return OnDevice(of_x), None, OnDevice(of_weight), None


def _on_host(function, args, kwargs):
    return _downloaded(args[0]) if isinstance(args[0], OnDevice) else function(*args, **kwargs)


def _tolist(function, args, kwargs):
    x = args[0]
    return _downloaded(x).tolist() if isinstance(x, OnDevice) else function(*args, **kwargs)


def _pin_memory(function, args, kwargs):
    pinned = args[0].clone()
    _pinned.add(pinned.untyped_storage().data_ptr())
    return pinned


_MOVES: dict[str, Callable] = {
    "to": _to,
    "cpu": _on_host,
    "tolist": _tolist,
    "copy_": _copy,
    "pin_memory": _pin_memory,
    "rms_norm": _rms_norm,
}


class _Event:
    def record(self, stream: Any = None) -> None:
        pass

    def synchronize(self) -> None:
        _ledger.waits.append("event")


class _Stream:
    """Work of a pretended device is done when it is queued."""

    cuda_stream = 0

    def __init__(self, device: Any = None) -> None:
        pass

    def wait_stream(self, other: _Stream) -> None:
        pass

    def wait_event(self, event: Any) -> None:
        pass

    def record_event(self, event: Any = None) -> _Event:
        return _Event()

    def synchronize(self) -> None:
        _ledger.waits.append("stream")


@contextmanager
def claimed_device(monkeypatch, library: Library | None = None) -> Iterator[None]:
    """Tensors for `cuda` are pretended meanwhile; kernels may access them if there is a library."""
    global _library
    stream = _Stream()
    stand_ins = {
        "Stream": _Stream,
        "Event": _Event,
        "current_stream": lambda device=None: stream,
        "stream": lambda stream: nullcontext(),
        "device": lambda device: nullcontext(),
        "synchronize": lambda device=None: _ledger.waits.append("synchronize"),
        "empty_cache": lambda: None,
    }
    for name, stand_in in stand_ins.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    run_backward, factories = torch.autograd._engine_run_backward, _Factories()

    def backward(*args, **kwargs):
        # The mode is off in what it calls, and the backward of our own functions is called from there.
        with factories:
            return run_backward(*args, **kwargs)

    monkeypatch.setattr(torch.autograd, "_engine_run_backward", backward)
    _library = library
    try:
        with factories:
            yield
    finally:
        _library = None
        _kept.clear()
        _pinned.clear()
        if library is not None:
            library.cdll.rehearsal_forget_tensors()


@contextmanager
def counted() -> Iterator[Ledger]:
    """What is asked of the device meanwhile."""
    global _ledger
    before, _ledger = _ledger, Ledger()
    try:
        yield _ledger
    finally:
        _ledger = before
