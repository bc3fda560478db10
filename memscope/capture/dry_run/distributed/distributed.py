"""Programs of many processes in a dry run: what is changed in torch for them, and undone at the end."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from memscope.capture.dry_run._operations import OperationRouter
from memscope.capture.dry_run._storages import OwnerBook, RunContext, StorageTable
from memscope.capture.dry_run.distributed._collectives import Collectives
from memscope.capture.dry_run.distributed._groups import Groups
from memscope.capture.dry_run.distributed._reducer import ReducerWatch
from memscope.capture.patches import Patches
from memscope.trace.categories import Category

_PROPAGATION = ("propagate_op_sharding_non_cached", "_propagate_tensor_meta_non_cached")


class Distributed:
    """Lets process groups be made, runs their collectives, and names their buffers.

    Parameters
    ----------
    router, storages, owners, context
        The parts of the dry run.
    patches
        Where changes to torch are written down to be undone.
    """

    def __init__(
        self,
        router: OperationRouter,
        storages: StorageTable,
        owners: OwnerBook,
        context: RunContext,
        patches: Patches,
    ) -> None:
        from torch._subclasses.fake_tensor import FakeTensor

        self._router = router
        self._storages = storages
        self._owners = owners
        self._patches = patches
        self.groups = Groups()
        self._collectives = Collectives(
            lambda value: isinstance(value, FakeTensor), self._own, lambda: context.place, lambda group: None
        )
        self._is_propagation_watched = False

    def install(self) -> None:
        """Put the replacements in place."""
        import torch.distributed as dist

        if not dist.is_available():
            return
        self.groups.install(self._patches)
        ReducerWatch(self._router, self._owners).install(self._patches)
        self._router.handler_of = self._collectives.handler

    def wrapped(self, types: Any) -> Any:
        """The answer to an operation on tensors that wrap others: they say first what is done with those inside."""
        if not self._is_propagation_watched and any(kind.__module__.startswith("torch.distributed") for kind in types):
            self._watch_propagation()
        return NotImplemented

    def _watch_propagation(self) -> None:
        """Keep the tensors by which DTensor works out shapes, whole ones, off the device."""
        from torch.distributed.tensor import _sharding_prop

        self._is_propagation_watched = True
        for name in _PROPAGATION:
            plain = getattr(_sharding_prop.ShardingPropagator, name, None)
            if plain is not None:
                self._patches.set(_sharding_prop.ShardingPropagator, name, self._aside(plain))

    def _aside(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(plain)
        def aside(*args: Any, **kwargs: Any) -> Any:
            with self._router.aside():
                return plain(*args, **kwargs)

        return aside

    def _own(self, tensor: Any, category: Category, label: str) -> None:
        allocation = self._storages.of(tensor) if self._router.is_device_tensor(tensor) else None
        if allocation is not None:
            self._owners.settle(allocation, category, label)
