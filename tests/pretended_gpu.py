"""A CUDA device that is only pretended: the CPU computes the values, and what a GPU would wait for is noted.

A tensor on the device is a `Held` tensor. PyTorch takes it for a CUDA tensor without storage; its values are those of
an ordinary tensor that it holds. Every operation passes through the mode `PretendedGpu`, which does it on the held
tensors and notes each violation of the law of the step (docs/methods.md) with the line of this repository that it is
in. So training steps and evaluations run here from end to end, with the values that they have on a CPU.
"""

from __future__ import annotations

import linecache
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from tests.settings import ROOT

CUDA = torch.device("cuda", 63)  # no machine has it, so that nothing cached for it is ever used by a real GPU
MIXES, READS, SHAPE, SENDS = (
    "mixes devices",
    "reads a value back",
    "has a shape that depends on values",
    "sends and waits",
)
#: Operations whose CUDA kernels read values back, besides those that read a mask given as an index.
READING = {"_local_scalar_dense", "equal", "multinomial", "linalg_inv_ex", "_linalg_solve_ex"}
SHAPING = {"nonzero", "masked_select", "bincount", "_unique2", "unique_dim", "unique_consecutive", "repeat_interleave"}
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}
COPIES = {"_to_copy", "copy_"}
HERE = str(Path(__file__))
PYTORCH = str(Path(torch.__file__).parent)


class Finding(NamedTuple):
    """A violation of the law, and where it is."""

    what: str
    operation: str
    file: str  # relative to the checkout
    function: str
    line: int

    def __str__(self) -> str:
        code = linecache.getline(str(ROOT / self.file), self.line).strip()
        return f"{self.file}:{self.line} in {self.function}: {self.operation} {self.what}: {code}"


def _finding(what: str, operation: str) -> Finding:
    """With the innermost line of this repository that is on the stack, other than those of this module."""
    frame = sys._getframe(1)
    while frame.f_back:
        file, code = frame.f_code.co_filename, frame.f_code
        if file.startswith(str(ROOT)) and file != HERE and not file.startswith(PYTORCH):
            return Finding(what, operation, str(Path(file).relative_to(ROOT)), code.co_name, frame.f_lineno)
        frame = frame.f_back
    return Finding(what, operation, "?", "?", 0)


class Held(Tensor):
    """A tensor on the pretended device. C++ sees a meta tensor with the dispatch keys of CUDA, Python one of CUDA."""

    device = property(lambda self: CUDA)
    is_cuda = property(lambda self: True)
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, real: Tensor) -> Held:
        shell = torch.empty_strided(real.shape, real.stride(), dtype=real.dtype, device="meta")
        self = torch.Tensor._make_subclass(cls, shell, False, device_for_backend_keys=torch.device("cuda"))
        self.values = real
        return self

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        raise RuntimeError(f"{operation} on a pretended device outside `PretendedGpu`")

    @property
    def data(self) -> Tensor:
        return self.detach()

    @data.setter
    def data(self, value: Held) -> None:
        Tensor.data.__set__(self, value)
        self.values = value.values

    def tolist(self) -> list:
        return self.cpu().tolist()


class PretendedGpu(TorchDispatchMode):
    """Does operations on `Held` tensors, and appends what is against the law to `findings`."""

    def __init__(self) -> None:
        super().__init__()
        self.findings: list[Finding] = []
        self._pinned: dict[int, torch.UntypedStorage] = {}  # by address; kept, so that no other gets the address

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and the guard against it takes time at every operation

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        kwargs, name = dict(kwargs or {}), operation.__name__.partition(".")[0]
        tensors = list(_tensors((args, list(kwargs.values()))))
        held, device = {id(t.values): t for t in tensors if isinstance(t, Held)}, kwargs.get("device")
        there = bool(held) if device is None else torch.device(device).type != "cpu"
        if held or there:
            self.findings += [_finding(what, name) for what in self._violations(name, tensors, args, kwargs, there)]
        if device is not None:
            kwargs["device"] = torch.device("cpu")
        pinned = kwargs.pop("pin_memory", None)
        result = operation(*_mapped(_values, args), **{key: _mapped(_values, value) for key, value in kwargs.items()})
        if pinned:
            self.pin(result)
        if not there or (tensors and result is tensors[0]):  # the second: values copied into a tensor of the CPU
            return result
        return _mapped(lambda t: held[id(t)] if id(t) in held else Held(t), result)

    def _violations(self, name: str, tensors: list[Tensor], args: tuple, kwargs: dict, there: bool) -> Iterator[str]:
        plain = [t for t in tensors if not isinstance(t, Held)]
        if name in COPIES:
            to = isinstance(args[0], Held) if name == "copy_" else there
            source = args[1] if name == "copy_" else args[0]
            if not to:
                yield READS
            elif not isinstance(source, Held) and not (self.is_pinned(source) and _non_blocking(args, kwargs)):
                yield SENDS
        elif any(t.dim() for t in plain) and len(plain) < len(tensors):  # of one value, the CPU sends a copy at once
            yield MIXES
        if name in READING:
            yield READS
        masks = [t for t in _tensors(args[1:2]) if t.dtype in (torch.bool, torch.uint8)]
        if name in SHAPING or (name in INDEXING and masks):
            yield SHAPE

    def pin(self, tensor: Tensor) -> Tensor:
        self._pinned[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    def is_pinned(self, tensor: Tensor) -> bool:
        return tensor.untyped_storage().data_ptr() in self._pinned


def _tensors(value: object) -> Iterator[Tensor]:
    """All tensors in it; arguments of operations are nested at most in tuples and lists."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for each in value:
            yield from _tensors(each)


def _mapped(change: Callable[[Tensor], Tensor], value: object) -> object:
    if isinstance(value, Tensor):
        return change(value)
    return type(value)(_mapped(change, each) for each in value) if isinstance(value, tuple | list) else value


def _values(tensor: Tensor) -> Tensor:
    return tensor.values if isinstance(tensor, Held) else tensor


def _non_blocking(args: tuple, kwargs: dict) -> bool:
    return bool(kwargs.get("non_blocking") or args[2:3] == (True,))


class _Generator(torch.Generator):
    """A generator of the CPU, which says that it is where it was asked to be."""

    def __new__(cls, device: torch.device | str = "cpu") -> _Generator:
        self = super().__new__(cls, "cpu")
        self.place = torch.device(device)
        return self

    device = property(lambda self: self.place)


class _Autocast(TorchFunctionMode):
    """What `torch.autocast` does to the operations that networks have: weights and inputs in half precision."""

    def __init__(self, device: str, dtype: torch.dtype, enabled: bool = True) -> None:
        super().__init__()
        self.dtype, self.enabled = dtype, enabled

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if self.enabled and function in (torch.conv2d, torch.nn.functional.linear):
            args = _mapped(lambda t: t.to(self.dtype), args)
        return function(*args, **(kwargs or {}))


@contextmanager
def pretended_gpu() -> Iterator[PretendedGpu]:
    """Within it, `CUDA` is a device. Yields the mode that does, and watches, what happens on it."""
    mode, lifts = PretendedGpu(), torch._C._only_lift_cpu_tensors()
    with pytest.MonkeyPatch.context() as patch:
        if not torch.cuda.is_available():
            patch.setattr(torch.cuda, "_lazy_init", lambda: None)
        patch.setattr(torch, "Generator", _Generator)
        patch.setattr(torch, "autocast", _Autocast)
        patch.setattr(torch.Tensor, "pin_memory", lambda tensor, *_: mode.pin(tensor.clone()))
        patch.setattr(torch.Tensor, "is_pinned", lambda tensor, *_: mode.is_pinned(tensor))
        overwrite = torch.__future__.get_overwrite_module_params_on_conversion()
        torch.__future__.set_overwrite_module_params_on_conversion(True)  # a held parameter is another Python object
        torch._C._set_only_lift_cpu_tensors(True)  # `torch.tensor` sends what it made to the device by an operation
        try:
            with mode:
                yield mode
        finally:
            torch._C._set_only_lift_cpu_tensors(lifts)
            torch.__future__.set_overwrite_module_params_on_conversion(overwrite)
