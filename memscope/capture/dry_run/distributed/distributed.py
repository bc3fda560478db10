"""Programs of many processes in a dry run: what is changed in torch for them, and undone at the end."""

from __future__ import annotations

from typing import Any

from memscope.capture.dry_run.distributed._collectives import Collectives
from memscope.capture.dry_run.distributed._groups import Groups, replace_everywhere
from memscope.capture.dry_run.distributed._nccl import NcclModel
from memscope.capture.dry_run.distributed._objects import ObjectCollectives
from memscope.capture.dry_run.distributed._parts import DryRunParts
from memscope.capture.dry_run.distributed._reducer import watch_reducer
from memscope.capture.dry_run.distributed._shards import ShardWatch
from memscope.capture.dry_run.distributed._spawning import follow_spawned
from memscope.capture.patches import Patches


class Distributed:
    """Lets process groups be made, runs their collectives, and names their buffers.

    Parameters
    ----------
    parts
        The dry run.
    patches
        Where changes to torch are written down to be undone.
    """

    def __init__(self, parts: DryRunParts, patches: Patches) -> None:
        self._parts = parts
        self._patches = patches
        self._groups = Groups()
        self._shards = ShardWatch(parts, patches)
        self._nccl = NcclModel()
        self._collectives = Collectives(parts, self._place, self._nccl.uses)

    def install(self) -> None:
        """Put the replacements in place."""
        import torch.distributed as dist

        if not dist.is_available():
            return
        self._groups.install(self._patches)
        ObjectCollectives(self._groups.is_alone).install(self._patches, replace_everywhere)
        follow_spawned(self._patches)
        self._shards.install()
        watch_reducer(self._parts, self._patches)
        self._parts.handle(self._collectives.handler)

    def on_wrapped(self) -> None:
        """An operation on tensors that wrap others comes."""
        self._shards.watch_fully_shard()

    def extra(self) -> dict[str, Any]:
        """What a trace says of it beside its events."""
        return {"collectives_modelled": self._nccl.summary()}

    def _place(self) -> str:
        return self._shards.module or self._parts.place()
