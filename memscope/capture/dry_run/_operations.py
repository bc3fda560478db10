"""Every ATen operation of a dry run passes here: traced on fake tensors, its new device storages allocated.

How the stand-in works. A tensor "on the GPU" is a fake tensor that carries the CUDA dispatch keys, so autocast, kernel
choice and shape rules are those of CUDA, and whose Python ``.device`` is ``cuda:0`` (a rank's: of its local rank).
Only PyTorch's C++ side, when it asks for the device, is told ``cpu``: it would otherwise look for streams and guards of
a driver that is not there.
Small host tensors are real and have their values; large ones are fake, so that a model that does not fit the host can
be built on it.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from threading import RLock, get_ident
from typing import Any

from memscope.capture.dry_run._results import MISSING, ResultCache
from memscope.capture.dry_run._storages import StorageTable, parts_of
from memscope.capture.dry_run.kernels.scratch import SHAPES, Call, scratch_of
from memscope.capture.dry_run.kernels.workspaces import CUBLASLT_LABEL, Workspaces
from memscope.capture.dry_run.values import known as known_values
from memscope.capture.dry_run.values.guards import answer_that_goes_on
from memscope.capture.dry_run.values.shapes import (
    FACTORIES,
    OF_KNOWN_SHAPE,
    n_numbers,
    result_of_unknown,
    sparse_result,
)
from memscope.capture.stacks import user_line
from memscope.errors import CaptureError
from memscope.gpus import GpuModel
from memscope.replay.caching.allocator import SimulatedOutOfMemoryError

MAX_REAL_NUMBERS = 1 << 20
"""Host tensors with more elements than this are fake."""
_NO_DRIVER = ("not linked with support for cuda", "No CUDA GPUs are available", "Found no NVIDIA driver")
"""What PyTorch's C++ says where it asks for a device: of a build without CUDA, and of one with it."""
_RESULTS = {
    "native_dropout": (1, 0),
    "_scaled_dot_product_efficient_attention": (0, 1),
    "_embedding_bag": (2, 1, 0, 3),
    "_thnn_fused_lstm_cell": (2, 0, 1),
    "_thnn_fused_gru_cell": (1, 0),
}
"""Results that CUDA allocates on the device, in its order, where that is not all of them from first to last.

The mask of a dropout comes first; seed and offset of the attention are on the host outside of CUDA graphs.
"""
_WRITTEN_IN_PLACE = frozenset(
    [
        *("scatter_add", "index_add", "index_put", "_unsafe_index_put", "scatter", "masked_scatter", "index_copy"),
        *("put",),
    ]
)
"""What backward formulas write into zeros that they have made."""
_RANDOM_IN_PLACE = frozenset(
    ["uniform_", "normal_", "random_", "bernoulli_", "exponential_", "cauchy_", "log_normal_", "geometric_"]
)


_SCALARS = ("_local_scalar_dense", "item")
"""Reads of one number; the second comes by its name in inference mode."""
_BY_VALUE = frozenset([*_SCALARS, "equal", "allclose", "is_nonzero"])
"""What reads values."""
_COPIES = frozenset(["copy_", "_to_copy", "detach", "alias", "slice", "select", "narrow", "view", "empty_strided"])
"""What another thread than the program's own may do with the device."""


class OperationRouter:
    """Decides for each operation where it runs, and accounts for what it makes.

    Parameters
    ----------
    storages
        The device's allocations.
    gpu
        The device, for the sizes of library workspaces.
    on_oom
        Turns the simulator's failure into the exception that the program gets.
    """

    def __init__(self, storages: StorageTable, gpu: GpuModel, on_oom: Any) -> None:
        import torch
        from torch._subclasses.fake_tensor import FakeTensor

        self._storages = storages
        self._gpu = gpu
        self._on_oom = on_oom
        self._fake_type = FakeTensor
        self._tensor_type = torch.Tensor
        self._host = torch.device("cpu")
        self._named = [torch.device("cuda", index) for index in range(len(storages.devices))]
        self._ask_device = torch.ops.prim.device.default
        self._add = torch.ops.aten.add.Tensor
        self._current_fake_mode = torch._C._get_dispatch_mode
        self._current_graph_task = torch._C._current_graph_task_id
        self._fake_key = torch._C._TorchDispatchModeKey.FAKE
        self.fake_mode: Any = None
        """The fake tensor mode of the dry run; the only one there may be."""
        self._kinds: dict[Any, str] = {}
        self._results = ResultCache(self.is_device_tensor)
        self._is_by_value = False
        """Whether the last result that was traced depends on values."""
        self._workspaces = Workspaces(gpu, torch.__version__)
        self._is_tracing = False
        self._thread = get_ident()
        self._lock = RLock()
        self.modes: Sequence[Any] = ()
        """The torch modes of the dry run, which are a thread's own."""
        self.hides_device = False
        """True while fake tensors are on the host to C++ inside an operation as well."""
        self.is_leaving_device = False
        """True while the program itself asks for a copy on the host."""
        self.call_has_device = False
        """Whether the innermost torch call made from Python was given a device tensor."""
        self.is_accumulating = False
        """True while the autograd engine runs and no Python code of a user."""
        self.fixed_answers: Counter[str] = Counter()
        self.host_memory: Any = None
        """What remembers pinned memory; set when the recording starts."""
        self.handler_of: Callable[[Any], Callable[..., Any] | None] = lambda _: None
        """Finds what runs an operation in its place: collectives are not run as others are."""
        self._handlers: dict[Any, Callable[..., Any] | None] = {}
        self.is_aside = False
        self.says_answers = True
        """True while torch works out shapes for itself: nothing of it is on the device."""

    @property
    def is_tracing(self) -> bool:
        """True inside an operation, where torch's own Python code must find torch as it is; in its thread alone."""
        return self._is_tracing and get_ident() == self._thread

    def is_device_tensor(self, value: object) -> bool:
        """Whether this is a tensor on the simulated device."""
        return isinstance(value, self._fake_type) and value.fake_device.type == "cuda"

    def dispatch(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one operation."""
        if func is self._ask_device:
            return self._host
        if self.is_aside:
            self._settle_device(kwargs, has_device=False)
            return func(*args, **kwargs)
        mode = self._current_fake_mode(self._fake_key)
        if mode is not self.fake_mode:
            if mode is None:  # torch's own code computes something of the host, such as which ranks are a mesh's
                return func(*args, **kwargs)
            raise CaptureError(f"{user_line()}: a program that uses FakeTensorMode itself cannot be dry-run")
        with self._lock:
            return self._dispatched(func, args, kwargs)

    def _dispatched(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        handler = self._handler(func)
        if handler is not None:
            handled = handler(args, kwargs)
            if handled is not NotImplemented:
                return handled
        tensors = self._tensors(args, kwargs)
        on_device = [t for t in tensors if isinstance(t, self._fake_type) and t.fake_device.type == "cuda"]
        placed = on_device[0] if on_device else None
        has_device = placed is not None
        is_pinned = kwargs.pop("pin_memory", False)
        if placed is not None:
            self._storages.device = self._storages.devices.of(placed.fake_device.index)
        wants_device = not is_pinned and self._settle_device(kwargs, has_device)
        self._is_tracing = True
        try:
            if has_device or wants_device:
                return self._on_device(func, args, kwargs, tensors)
            made = self._on_host(func, args, kwargs, tensors)
            return self.host_memory.note(made) if is_pinned else made
        finally:
            self._is_tracing = False

    def _handler(self, func: Any) -> Callable[..., Any] | None:
        try:
            return self._handlers[func]
        except KeyError:
            handler = self._handlers[func] = self.handler_of(func)
            return handler

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Run operations that nothing is known of on the device, in torch's own code."""
        outer = self.is_aside, self._is_tracing
        self.is_aside = self._is_tracing = True
        try:
            yield
        finally:
            self.is_aside, self._is_tracing = outer

    def made_up(self, answer: Any) -> Any:
        """Count an answer that nothing but the type of a value decided; the first is said."""
        place = user_line()
        if self.says_answers and not self.fixed_answers:
            sys.stderr.write(
                f"memscope: dry run: {place} reads a value that a dry run does not have: it gets {answer}, and code "
                "that branches on it takes that branch (said once; the trace counts them)\n"
            )
        self.fixed_answers[place] += 1
        return answer

    @property
    def is_elsewhere(self) -> bool:
        """Whether this is another thread than the one that the dry run follows."""
        return get_ident() != self._thread

    @contextmanager
    def visited(self) -> Iterator[None]:
        """A block in which another thread works on the device; the program's own waits before its next operation."""
        with self._lock, ExitStack() as modes:
            before = self._thread, self._is_tracing, self.call_has_device, self.is_accumulating
            self._thread, self._is_tracing, self.call_has_device, self.is_accumulating = get_ident(), False, True, False
            try:
                for mode in self.modes:
                    modes.enter_context(mode)
                yield
            finally:
                modes.close()
                self._thread, self._is_tracing, self.call_has_device, self.is_accumulating = before

    def refuse_device(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an operation of another thread: on the host as ever, on the device copies alone, as loaders make them."""
        if func is self._ask_device:
            return self._host
        if not self.is_elsewhere:
            return func(*args, **kwargs)
        device = kwargs.get("device")
        if (device is not None and device.type == "cuda") or any(
            map(self.is_device_tensor, self._tensors(args, kwargs))
        ):
            if self._kind(func) in _COPIES:
                with self.visited():
                    return func(*args, **kwargs)
            raise CaptureError(
                f"{user_line()}: a dry run follows the thread that started it; this one works on the device as well"
            )
        return func(*args, **kwargs)

    def _tensors(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
        found = []
        tensor_type = self._tensor_type
        for value in (*args, *kwargs.values()) if kwargs else args:
            if isinstance(value, tensor_type):
                found.append(value)
            elif isinstance(value, tuple | list):
                found.extend(part for part in value if isinstance(part, tensor_type))
        return found

    def _settle_device(self, kwargs: dict[str, Any], has_device: bool) -> bool:
        """Make the device argument say what was meant; return whether the result is on the device.

        C++ code that copies a device tensor's options asks for ``cpu``, because that is what it was told.
        """
        wanted = kwargs.get("device")
        if wanted is None:
            return False
        devices = self._storages.devices
        if wanted.type == "cuda":
            self._storages.device = devices.of(wanted.index)
        elif wanted.type != "cpu" or self.is_leaving_device or not (has_device or self.call_has_device):
            return False
        kwargs["device"] = self._named[self._storages.device.index]
        return True

    def _kind(self, func: Any) -> str:
        """Base name of an operation: ``mm`` for ``aten::mm.out``."""
        kind = self._kinds.get(func)
        if kind is None:
            kind = self._kinds[func] = func._schema.name.split("::")[1]
        return kind

    def _on_host(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], tensors: Sequence[Any]) -> Any:
        from torch._subclasses.fake_tensor import unset_fake_temporarily

        kind = self._kind(func)
        is_fake = any(isinstance(t, self._fake_type) for t in tensors)
        if not is_fake and not (kind in FACTORIES and n_numbers(kind, args) > MAX_REAL_NUMBERS):
            with unset_fake_temporarily():
                return func(*args, **kwargs)
        return self._traced(func, kind, args, kwargs, tensors)

    def _on_device(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], tensors: Sequence[Any]) -> Any:
        kind = self._kind(func)
        reused = self._reused(func, kind, args) if self.is_accumulating else None
        result = self._result(func, kind, args, kwargs, tensors) if reused is None else reused
        try:
            self._allocate(kind, Call(func, args, kwargs, result, self._gpu.n_multiprocessors))
            if kind == "resize_":
                self._storages.resized(args[0].untyped_storage())
        except SimulatedOutOfMemoryError as error:
            raise self._on_oom(error) from None
        if reused is None:
            known_values.follow(func, args, kwargs, tensors, result)
        return result

    def _result(
        self, func: Any, kind: str, args: tuple[Any, ...], kwargs: dict[str, Any], tensors: Sequence[Any]
    ) -> Any:
        """What an operation makes, as it made it of tensors that looked the same, or else traced."""
        key = None if kind in _BY_VALUE or kind in _RANDOM_IN_PLACE else self._results.key(func, args, kwargs)
        if key is None:
            return self._traced(func, kind, args, kwargs, tensors)
        result = self._results.result(key, args)
        if result is MISSING:
            self._is_by_value = False
            result = self._traced(func, kind, args, kwargs, tensors)
            if not self._is_by_value:
                self._results.learn(key, args, result)
        return result

    def _reused(self, func: Any, kind: str, args: tuple[Any, ...]) -> Any:
        """What an operation of the autograd engine writes into, where PyTorch makes nothing new; None for the rest."""
        if func is self._add:
            return self._accumulated_in_place(args)
        if kind in _WRITTEN_IN_PLACE and self._is_fresh(args[0]) and _is_of_tensors(kind, args):
            return args[0].detach()
        return None

    def _allocate(self, kind: str, call: Call) -> None:
        """Allocate what a kernel takes and what it returns, in its order; products begin when they have all else."""
        scratch = scratch_of(kind, call)
        if scratch is None:
            self._account(_in_order(kind, call.result))
            self._add_workspaces(kind, call.args)
            return
        with self._storages.held(scratch.before, kind, lambda: self._add_workspaces(kind, call.args)):
            if scratch.result_bytes:
                self._storages.track(call.result, scratch.result_bytes)
            self._account(_in_order(kind, call.result))
            with self._storages.held(scratch.after, kind):
                self._add_workspaces(kind, call.args)

    def _add_workspaces(self, kind: str, args: tuple[Any, ...]) -> None:
        """What cuBLAS and cuBLASLt work in, where a product needs it and has none."""
        device = self._storages.device
        is_by_engine = self._current_graph_task() >= 0
        needed = self._workspaces.needed(kind, args, (device.index, device.stream), is_by_engine=is_by_engine)
        for n_bytes, label in needed.kept:
            self._storages.workspace(n_bytes, label)
        if needed.given_back_bytes:
            with self._storages.held([needed.given_back_bytes], CUBLASLT_LABEL):
                pass

    def _account(self, result: Any) -> None:
        if isinstance(result, self._fake_type):
            if result.fake_device.type == "cuda":
                for part in parts_of(result):
                    self._storages.track(part)
        elif isinstance(result, tuple | list):
            for part in result:
                self._account(part)

    def _traced(
        self, func: Any, kind: str, args: tuple[Any, ...], kwargs: dict[str, Any], tensors: Sequence[Any]
    ) -> Any:
        """Run on fake tensors; what needs values gets them, or a fixed answer."""
        from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException

        if kind in _RANDOM_IN_PLACE:
            known_values.forget(args[0])
            return args[0]
        if kind in _BY_VALUE:
            return self._answer(func, kind, args, tensors)
        if kind in ("_pin_memory", "record_stream"):
            return args[0] if kind == "_pin_memory" else None
        if kind in SHAPES:
            return SHAPES[kind](args)
        sparse = sparse_result(kind, args, is_by_engine=self.is_accumulating)
        if sparse is not None:
            return sparse
        try:
            return self._run(func, args, kwargs)
        except (DataDependentOutputException, DynamicOutputShapeException, NotImplementedError) as error:
            if isinstance(error, NotImplementedError) and kind not in OF_KNOWN_SHAPE:
                raise
            self._is_by_value = True
            shaped = self._shaped_as_known(func, args, kwargs, tensors)
            if shaped is None:
                shaped = result_of_unknown(kind, args, kwargs)
                if shaped is not None and kind not in OF_KNOWN_SHAPE:
                    self.fixed_answers[user_line()] += 1
            if shaped is None:
                raise CaptureError(
                    f"{user_line()}: the result of {func} depends on values that a dry run does not have; "
                    "record on a GPU, or keep this part out of the dry run"
                ) from error
            return shaped

    def _run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run on fake tensors; some of torch's shape rules write in C++, which then must not see the device."""
        try:
            return func(*args, **kwargs)
        except RuntimeError as error:
            if not any(words in str(error) for words in _NO_DRIVER):
                raise
        self.hides_device = True
        try:
            return func(*args, **kwargs)
        finally:
            self.hides_device = False

    def _answer(self, func: Any, kind: str, args: tuple[Any, ...], tensors: Sequence[Any]) -> Any:
        """The value itself where it is known, else 1.0, 1 or False by type."""
        if known_values.known_inputs(tensors, self._fake_type):
            return known_values.compute(func, args, {})
        if self.is_accumulating and kind in _SCALARS and not args[0].dtype.is_floating_point:
            return 0  # PyTorch's formulas ask how many odd values there are, such as zeros in a product: none
        answer = fixed_answer(args[0].dtype) if kind in _SCALARS else False
        if isinstance(answer, bool):
            goes_on = answer_that_goes_on()
            answer = answer if goes_on is None else goes_on
        return self.made_up(answer)

    def _shaped_as_known(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], tensors: Sequence[Any]) -> Any:
        """The result of an operation with a data-dependent shape whose data are known; None if they are not."""
        if not tensors or not known_values.known_inputs(tensors, self._fake_type):
            return None
        if not all(map(known_values.is_small, tensors)):
            return None
        real = known_values.compute(func, args, kwargs)
        like = next(tensor for tensor in tensors if isinstance(tensor, self._fake_type))

        def shaped(value: Any) -> Any:
            made = like.new_empty(tuple(value.shape), dtype=value.dtype)
            known_values.remember(made, value)
            return made

        return tuple(map(shaped, real)) if isinstance(real, tuple) else shaped(real)

    def _accumulated_in_place(self, args: tuple[Any, ...]) -> Any:
        """Where the engine adds two gradients, it reuses one that nothing else holds; None if it cannot.

        For tensor subclasses, fake ones among them, PyTorch itself adds out of place (``InputBuffer::add`` and
        ``AccumulateGrad``), which on a GPU it would not.
        """
        first, second = args[:2]
        if not (self.is_device_tensor(first) and self.is_device_tensor(second)):
            return None
        if first.shape != second.shape or first.dtype != second.dtype or first.is_sparse or second.is_sparse:
            return None
        for old in (first, second):
            if self._is_sole_holder(old):
                return old.detach()
        return None

    def _is_fresh(self, tensor: Any) -> bool:
        """Whether a gradient's formula has just made a tensor, to write into it.

        Where a tensor subclass is among what it was given, fake ones included, PyTorch's formulas write into a copy.
        """
        return self.is_device_tensor(tensor) and self._is_sole_holder(tensor)

    def _is_sole_holder(self, tensor: Any) -> bool:
        import torch

        if not is_dense(tensor):
            return False
        storage = tensor.untyped_storage()
        return bool(torch._C._storage_Use_Count(storage._cdata) <= 2)


def _is_of_tensors(kind: str, args: tuple[Any, ...]) -> bool:
    """Whether a formula scatters a gradient into zeros; what scatters a number into a gradient makes a new one."""
    return kind != "scatter" or not isinstance(args[3], int | float)


def _in_order(kind: str, result: Any) -> Any:
    order = _RESULTS.get(kind)
    return result if order is None else tuple(result[position] for position in order)


def is_dense(tensor: Any) -> bool:
    """Whether the elements fill their memory without gaps or overlaps, in some order of the dimensions."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size != 1:
            if stride != expected:
                return False
            expected *= size
    return True


def fixed_answer(dtype: Any) -> float | int | bool:
    """What a dry run says a number is when it cannot know: 1.0, 1, or False."""
    import torch

    if dtype == torch.bool:
        return False
    return 1.0 if dtype.is_floating_point else 1
