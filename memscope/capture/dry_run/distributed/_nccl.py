"""What NCCL takes beside PyTorch's memory, which no dry run can see: a model, made of sizes that were published.

A communicator is made at the first collective of a process group, and keeps its buffers. How large they are depends on
links, algorithms and channels; what users and NCCL's developers have told of one lies between the two sizes here. The
first all-to-all of many devices takes more: 3.3 GB were told.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

LOW_BYTES = 544_000_000
"""For one communicator. Source: NVIDIA/nccl issue 964, 544 to 688 MB."""
HIGH_BYTES = 1_600_000_000
"""For one communicator. Source: NVIDIA/nccl issue 864."""


class NcclModel:
    """Counts the communicators that a program would have."""

    def __init__(self) -> None:
        self._groups: set[str] = set()

    def uses(self, group: Any) -> None:
        """A collective works on the device: its group gets a communicator, unless its only rank is this one."""
        from torch._C._distributed_c10d import _resolve_process_group
        from torch.distributed import ProcessGroup

        if group is None or (isinstance(group, str) and group in self._groups):
            return
        resolve: Callable[[Any], Any] = _resolve_process_group if isinstance(group, str) else ProcessGroup.unbox
        of = resolve(group)
        if of.size() > 1:
            self._groups.add(of.group_name)

    def summary(self) -> dict[str, int] | None:
        """For a trace's ``extra``; None where there is no communicator."""
        n = len(self._groups)
        return {"n_communicators": n, "low_bytes": n * LOW_BYTES, "high_bytes": n * HIGH_BYTES} if n else None
