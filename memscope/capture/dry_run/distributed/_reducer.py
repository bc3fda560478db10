"""DistributedDataParallel in a dry run: its reducer, in C++, makes buckets on the device where it believes the host."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from memscope.capture.dry_run._operations import OperationRouter
from memscope.capture.dry_run._storages import OwnerBook
from memscope.capture.patches import Patches
from memscope.trace.categories import Category

_LABEL = "DDP buckets"


class ReducerWatch:
    """Lets the reducer make its buckets on the device, and names them.

    Where gradients are views of the buckets, the buckets become gradients when those are found.
    """

    def __init__(self, router: OperationRouter, owners: OwnerBook) -> None:
        self._router = router
        self._owners = owners

    def install(self, patches: Patches) -> None:
        """Put the replacements in place."""
        import torch.distributed as dist

        reducer = dist.Reducer
        patches.set(dist, "Reducer", self._making(reducer, lambda args: args[0]))
        patches.set(reducer, "_rebuild_buckets", self._rebuilding(reducer._rebuild_buckets))

    def _making(self, plain: Callable[..., Any], parameters_of: Callable[[Any], Any]) -> Callable[..., Any]:
        @functools.wraps(plain, updated=())
        def made(*args: Any, **options: Any) -> Any:
            with self._buckets(is_on_device=any(map(self._router.is_device_tensor, parameters_of(args)))):
                return plain(*args, **options)

        return made

    def _rebuilding(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        def rebuild_buckets(reducer: Any, *args: Any) -> Any:
            with self._buckets(is_on_device=True):
                return plain(reducer, *args)

        return rebuild_buckets

    @contextmanager
    def _buckets(self, *, is_on_device: bool) -> Iterator[None]:
        router, owners = self._router, self._owners
        outer = router.call_has_device, owners.owner_at_birth
        router.call_has_device, owners.owner_at_birth = is_on_device, (Category.COMMUNICATION, _LABEL)
        try:
            yield
        finally:
            router.call_has_device, owners.owner_at_birth = outer
