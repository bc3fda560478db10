"""DistributedDataParallel in a dry run: its reducer, in C++, makes buckets on the device where it believes the host."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from memscope.capture.dry_run.distributed._parts import DryRunParts
from memscope.capture.patches import Patches
from memscope.trace.categories import Category

LABEL = "DDP buckets"


def watch_reducer(parts: DryRunParts, patches: Patches) -> None:
    """Let the reducer make its buckets on the device, and name them.

    Where gradients are views of the buckets, the buckets become gradients when those are found.
    """
    import torch.distributed as dist

    reducer: Any = vars(dist)["Reducer"]
    plain_rebuild: Callable[..., bool] = reducer._rebuild_buckets

    def making(*, is_on_device: bool) -> AbstractContextManager[None]:
        return parts.making(is_on_device=is_on_device, category=Category.COMMUNICATION, label=LABEL)

    @functools.wraps(reducer, updated=())
    def made(parameters: Any, *args: Any, **options: Any) -> Any:
        with making(is_on_device=any(map(parts.is_on_device, parameters))):
            return reducer(parameters, *args, **options)

    def rebuild_buckets(of: Any) -> bool:
        with making(is_on_device=True):
            return plain_rebuild(of)

    patches.set(dist, "Reducer", made)
    patches.set(reducer, "_rebuild_buckets", rebuild_buckets)
