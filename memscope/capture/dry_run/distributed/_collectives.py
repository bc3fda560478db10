"""Collectives of a dry run: what they allocate, whose that is, and what is known of their results.

Nothing is sent. What other ranks would send counts as what this rank has: a value that is known here is known there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from memscope.capture.dry_run.distributed._parts import DryRunParts, Handler
from memscope.trace.categories import Category

_FIRST_TENSORS = ("allreduce_", "broadcast_", "alltoall_", "scatter_", "reduce_scatter_", "allgather_")
"""Operations that return the tensors they wrote, and the work."""
_WRITTEN = frozenset([*_FIRST_TENSORS, "_allgather_base_", "_reduce_scatter_base_", "reduce_", "allreduce_coalesced_"])
_CHANGE_NOTHING = frozenset(["broadcast_", "scatter_", "send", "barrier", "check_for_nan", "monitored_barrier_"])
"""Operations after which a tensor holds what it held: a source that is another rank has what this one has."""
_INPUT_OF = {"allreduce_": 0, "allgather_": 1, "_allgather_base_": 1}
"""Where the input stands of those whose results are known if it is."""
_RECEIVED = frozenset(["recv_", "recv_any_source_"])


class Collectives:
    """Runs the operations of process groups, in place of the groups.

    Parameters
    ----------
    parts
        The dry run.
    place
        Where the program is: a module's path, or a phase.
    on_use
        Told of each process group that works on the device.
    """

    def __init__(self, parts: DryRunParts, place: Callable[[], str], on_use: Callable[[Any], None]) -> None:
        self._parts = parts
        self._place = place
        self._on_use = on_use

    def handler(self, func: Any) -> Handler | None:
        """What runs an operation in its place, None for one that is no collective.

        The handler answers ``NotImplemented`` where the operation itself does what is wanted.
        """
        namespace, _, kind = func._schema.name.partition("::")
        if namespace == "c10d":
            return lambda args, _: self._grouped(kind, args)
        if namespace in ("_c10d_functional", "_c10d_functional_autograd", "_dtensor"):
            return lambda args, kwargs: self._functional(kind, args, kwargs)
        if namespace == "fsdp":
            return lambda args, kwargs: self._sharded(kind, args, kwargs)
        return None

    def _grouped(self, kind: str, args: tuple[Any, ...]) -> Any:
        """An operation of a process group on tensors without memory; on real ones of the host the group runs it."""
        tensors = list(_flat(args))
        if not any(map(self._parts.is_without_memory, tensors)):
            return NotImplemented
        group = next((arg for arg in args if _is_script_object(arg)), None)
        if any(map(self._parts.is_on_device, tensors)):
            self._on_use(group)
        self._claim(kind, args)
        buffer = self._buffer_of(kind, args) if all(map(self._parts.is_on_device, tensors)) else None
        self._pass_values_on(kind, args, _size_of(group))
        del buffer
        work = _done(list(_flat(args[:1])))
        if kind in ("monitored_barrier_", "check_for_nan"):
            return None
        returns_tensors = kind in _FIRST_TENSORS or kind in ("_allgather_base_", "_reduce_scatter_base_")
        return (args[0], work) if returns_tensors else work

    def _claim(self, kind: str, args: tuple[Any, ...]) -> None:
        """Name the buffers of a collective that exist for it alone."""
        if kind in _RECEIVED:
            self._own_all(args[0], "receive buffer")
        elif kind in ("_allgather_base_", "allgather_into_tensor_coalesced_"):
            self._own_all(args[:1], "all-gather buffer")
        elif kind in ("_reduce_scatter_base_", "reduce_scatter_tensor_coalesced_"):
            self._own_all(args[1:2], "reduce-scatter buffer")

    def _own_all(self, tensors: Any, what: str) -> None:
        place = self._place()
        for tensor in _flat(tensors):
            self._parts.own(tensor, Category.COMMUNICATION, f"{what} of {place}" if place else what)

    def _buffer_of(self, kind: str, args: tuple[Any, ...]) -> Any:
        """What NCCL's process group allocates for a call, to be let go of at its end.

        Lists of tensors are flattened where all have the same size; a barrier reduces a number of its own. Source:
        ``torch/csrc/distributed/c10d/ProcessGroupNCCL.cpp``, behaviour at 2.11.
        """
        import torch

        if kind == "barrier":
            return self._parts.new((1,), torch.float32)
        lists = {"allgather_": args[0], "reduce_scatter_": args[1]}.get(kind)
        if not lists or len({tensor.shape for tensor in lists[0]}) != 1:
            return None
        first = lists[0][0]
        flat = self._parts.new((len(lists[0]), *first.shape), first.dtype)
        self._own_all([flat], "all-gather buffer" if kind == "allgather_" else "reduce-scatter buffer")
        return flat

    def _pass_values_on(self, kind: str, args: tuple[Any, ...], size: int) -> None:
        """Note what is known of the tensors that a collective wrote, where other ranks have what this one has."""
        import torch
        from torch.utils._python_dispatch import _disable_current_modes

        if kind in _CHANGE_NOTHING:
            return
        known = [self._parts.value_of(tensor) for tensor in _flat(args[_INPUT_OF.get(kind, 0) :][:1])]
        written = list(_flat(args[:1]))
        self._forget(written)
        if kind in _RECEIVED:  # a number that another rank sends, such as a vote, is 1: what a read would be told
            if any(tensor.is_floating_point() or tensor.numel() != 1 for tensor in written):
                return
        elif kind not in _INPUT_OF or not known or any(value is None for value in known):
            return
        with _disable_current_modes():
            if kind in _RECEIVED:
                values = [torch.ones(tuple(tensor.shape), dtype=tensor.dtype) for tensor in written]
            elif kind == "allreduce_":
                values = [_reduced(value, args[2], size) for value in known]
            elif kind == "allgather_":
                values = [value.clone() for value in known for _ in range(size)]
            else:
                values = [known[0].repeat(size, *[1] * (known[0].dim() - 1)).reshape(written[0].shape)]
        for tensor, value in zip(written, values, strict=True):
            if value is not None and self._parts.is_without_memory(tensor):
                self._parts.give(tensor, value)

    def _sharded(self, kind: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Name what ``fully_shard`` gathers and reduces in; its operations run as they are."""
        if kind == "all_gather_copy_in":
            self._own_all(args[1:2], "all-gather buffer")
        elif kind == "split_with_sizes_copy":
            self._own_all(kwargs["out"], "unsharded parameters")
        elif kind == "chunk_cat":
            self._own_all([kwargs["out"]], "reduce-scatter buffer")
        return NotImplemented

    def _functional(self, kind: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A functional collective: one that writes into what it was given returns that, others a new tensor."""
        name = next((arg for arg in reversed(args) if isinstance(arg, str) or _is_script_object(arg)), None)
        if kind != "wait_tensor" and any(map(self._parts.is_on_device, _flat(args))):
            self._on_use(name)
        if kind not in _RETURN_AN_ARGUMENT:
            return NotImplemented
        result = kwargs.get("out", args[0])
        if kind != "wait_tensor":
            self._forget([result])
        return result

    def _forget(self, tensors: Any) -> None:
        for tensor in _flat(tensors):
            if self._parts.is_without_memory(tensor):
                self._parts.give(tensor, None)


_RETURN_AN_ARGUMENT = frozenset(
    [
        *("wait_tensor", "all_reduce_", "all_reduce_coalesced_", "broadcast_"),
        *("all_gather_into_tensor_out", "reduce_scatter_tensor_out"),
    ]
)


def _flat(values: Any) -> Iterator[Any]:
    """All tensors of nested lists."""
    import torch

    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, tuple | list):
            yield from _flat(value)


def _is_script_object(value: object) -> bool:
    import torch

    return isinstance(value, torch.ScriptObject)


def _size_of(group: Any) -> int:
    from torch.distributed import ProcessGroup

    return 1 if group is None else int(ProcessGroup.unbox(group).size())


def _done(tensors: list[Any]) -> Any:
    """A work that is done, with what it worked on."""
    import torch
    from torch._C import _distributed_c10d as c10d

    future: torch.futures.Future[Any] = torch.futures.Future()
    future.set_result(tensors)
    make: Any = vars(c10d)["_create_work_from_future"]
    return make(future).boxed()


_SUM, _SAME = 0, frozenset([1, 3, 4, 5, 6])
"""Numbers of ``ReduceOp.RedOpType``: those of a mean, least, greatest, and of bits leave equal values as they are."""


def _reduced(value: Any, operation: Any, size: int) -> Any:
    """What equal values of all ranks are reduced to; None where that is not known."""
    kind = operation.op()
    if kind == _SUM:
        return value * size
    return value.clone() if kind in _SAME else None
