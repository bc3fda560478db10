"""Tensors that wrap shards, in a dry run: DTensor, and what ``fully_shard`` gathers and reduces in.

A DTensor says where its shard is, which C++ believes to be on the host; and it works out shapes by running every
operation on tensors of the whole size, which must not be on the device.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from memscope.capture.dry_run.distributed._parts import DryRunParts
from memscope.capture.patches import Patches

_PROPAGATION = ("propagate_op_sharding_non_cached", "_propagate_tensor_meta_non_cached")
_FSDP_GROUPS = "torch.distributed.fsdp._fully_shard._fsdp_param_group"
_FSDP_ACTS = ("unshard", "wait_for_unshard", "post_backward")


class ShardWatch:
    """Follows sharded tensors, from the first mesh of devices on.

    Attributes
    ----------
    module
        The path of the module that ``fully_shard`` works for, else empty: in a backward pass no module runs.
    """

    def __init__(self, parts: DryRunParts, patches: Patches) -> None:
        self._parts = parts
        self._patches = patches
        self._is_watching = self._watches_fully_shard = False
        self.module = ""

    def install(self) -> None:
        """Start with the first mesh: torch's part for sharded tensors takes a second to be imported."""
        from torch.distributed.device_mesh import DeviceMesh

        plain = DeviceMesh.__init__

        @functools.wraps(plain)
        def init(mesh: Any, *args: Any, **options: Any) -> None:
            self._watch()
            plain(mesh, *args, **options)

        self._patches.set(DeviceMesh, "__init__", init)
        if "torch.distributed.tensor" in sys.modules:
            self._watch()

    def _watch(self) -> None:
        if self._is_watching:
            return
        self._is_watching = True
        from torch.distributed.tensor import DTensor, _sharding_prop

        propagator = _sharding_prop.ShardingPropagator
        for name in _PROPAGATION:
            plain = getattr(propagator, name, None)
            if plain is not None:
                self._patches.set(propagator, name, self._aside(plain))
        from torch.distributed.tensor import _dispatch

        if hasattr(_dispatch, "run_dtensor_rng_op"):  # sets the state of the device's generator, which has none here
            self._patches.set(_dispatch, "run_dtensor_rng_op", lambda _start, _end, op, *args, **kw: op(*args, **kw))
        for name in ("device", "is_cuda", "is_cpu", "is_meta"):
            self._patches.set(DTensor, name, _of_shard(name))
        moves = {
            "to": lambda tensor, *args, **options: self._to(tensor, *args, **options),
            "cuda": lambda tensor, *_, **__: self._to(tensor, "cuda"),
            "cpu": lambda tensor, *_, **__: self._to(tensor, "cpu"),
        }
        for name, move in moves.items():
            self._patches.set(DTensor, name, move)

    def watch_fully_shard(self) -> None:
        """Know the module that ``fully_shard`` works for, once that has been imported."""
        if self._watches_fully_shard or _FSDP_GROUPS not in sys.modules:
            return
        self._watches_fully_shard = True
        groups = getattr(sys.modules.get(_FSDP_GROUPS), "FSDPParamGroup", None)
        for name in _FSDP_ACTS:
            plain = getattr(groups, name, None)
            if plain is not None:
                self._patches.set(groups, name, self._working(plain))

    def _working(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(plain)
        def working(group: Any, *args: Any, **options: Any) -> Any:
            with self._for_module(getattr(group, "_module_fqn", None) or "the root module"):
                return plain(group, *args, **options)

        return working

    @contextmanager
    def _for_module(self, path: str) -> Iterator[None]:
        outer, self.module = self.module, path
        try:
            yield
        finally:
            self.module = outer

    def _aside(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(plain)
        def aside(*args: Any, **options: Any) -> Any:
            with self._parts.aside():
                return plain(*args, **options)

        return aside

    def _to(self, tensor: Any, *args: Any, **options: Any) -> Any:
        """``DTensor.to``: a device of the kind that the shard is on is no move."""
        import torch

        copy = options.pop("copy", False)
        args = tuple(torch.device(arg) if isinstance(arg, str) else arg for arg in args)
        if args and isinstance(args[0], torch.Tensor):
            device, dtype, memory_format = args[0].device, args[0].dtype, None
        else:
            device, dtype, _, memory_format = torch._C._nn._parse_to(*args, **options)
        kept = {"dtype": dtype, "memory_format": memory_format}
        kept = {name: value for name, value in kept.items() if value is not None}
        if device is not None and device.type != tensor.device.type:
            with self._parts.leaving():
                return torch.ops.aten._to_copy(tensor, device=device, **kept)
        if dtype in (None, tensor.dtype) and not copy:
            return tensor
        return torch.ops.aten._to_copy(tensor, **kept)


def _of_shard(name: str) -> property:
    return property(lambda tensor: getattr(tensor._local_tensor, name))
