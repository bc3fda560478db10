"""Process groups of a dry run: made in one process, whatever the number of ranks.

``nccl`` is there, though this build of PyTorch has none. A group whose ranks are not all running is a group of
PyTorch's fake backend, by whatever name the program asks for it; what a launcher has really started as several
processes meets by gloo as ever.
"""

from __future__ import annotations

import functools
import os
import re
import sys
import weakref
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from memscope.capture.dry_run.distributed.ranks import is_simulated
from memscope.capture.patches import Patches


class Groups:
    """Lets a program make process groups.

    Attributes
    ----------
    are_simulated
        Whether the other ranks are not there.
    """

    def __init__(self) -> None:
        self.are_simulated = is_simulated()
        self._serve_the_device_alone: weakref.WeakSet[Any] = weakref.WeakSet()

    def install(self, patches: Patches) -> None:
        """Put the replacements in place."""
        import torch
        import torch.distributed as dist
        from torch._C._distributed_c10d import FakeProcessGroup
        from torch.distributed import distributed_c10d as c10d

        replace_everywhere(patches, c10d.init_process_group, self._initialized(c10d.init_process_group))
        replace_everywhere(patches, c10d.is_nccl_available, lambda: True)
        patches.set(c10d, "_NCCL_AVAILABLE", True)
        if not hasattr(torch._C, "_nccl_version"):  # an error in a collective tells it
            patches.set(torch.cuda.nccl, "version", lambda: (0, 0, 0))
        patches.set(c10d, "default_pg_nccl_timeout", timedelta(minutes=10))
        replace_everywhere(patches, c10d._new_process_group_helper, self._made(c10d._new_process_group_helper))
        patches.set(c10d, "_get_object_coll_device", self._device_asked(c10d._get_object_coll_device))
        for name in ("_set_sequence_number_for_group", "_set_default_timeout"):
            patches.set(FakeProcessGroup, name, lambda *_: None)
        stand_in = _nccl_class()
        for owner in (c10d, dist):
            patches.set(owner, "ProcessGroupNCCL", stand_in)
        replace_everywhere(patches, c10d.new_group, self._without_gloo(c10d.new_group))
        replace_everywhere(patches, c10d.monitored_barrier, self._unmonitored(c10d.monitored_barrier))

    def is_alone(self, group: Any) -> bool:
        """Whether the other ranks of a group are not there to send objects: by gloo they may be, with a launcher."""
        from torch._C._distributed_c10d import FakeProcessGroup
        from torch.distributed import distributed_c10d as c10d

        group = group or c10d._get_default_group()
        types = [device for device in group._device_types if device.type == "cpu"] or group._device_types
        return isinstance(group._get_backend(types[0]), FakeProcessGroup)

    def _initialized(self, plain: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(plain)
        def init_process_group(
            backend: str | None = None,
            init_method: str | None = None,
            timeout: Any = None,
            world_size: int = -1,
            rank: int = -1,
            store: Any = None,
            **options: Any,
        ) -> None:
            import torch

            options.pop("device_id", None)  # would connect to the driver at once
            size = world_size if world_size > 0 else int(os.environ.get("WORLD_SIZE") or 1)
            own = rank if rank >= 0 else int(os.environ.get("RANK") or 0)
            if (self.are_simulated or size == 1) and backend != "fake":
                backend = self._without_others(backend)
                store, init_method, world_size, rank = torch._C._distributed_c10d.HashStore(), None, size, own
            plain(backend, init_method, timeout, world_size, rank, store, **options)

        return init_process_group

    def _made(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        """Let a group of NCCL serve the host as well: for that is where C++ believes the device's tensors to be."""

        @functools.wraps(plain)
        def made(*args: Any, **options: Any) -> Any:
            import torch

            group, _ = result = plain(*args, **options)
            types = getattr(group, "_device_types", ())
            if types and all(device.type != "cpu" for device in types):
                of_device = group._get_backend(types[0])
                group._register_backend(torch.device("cpu"), torch.distributed.ProcessGroup.BackendType.NCCL, of_device)
                self._serve_the_device_alone.add(group)
            return result

        return made

    def _device_asked(self, plain: Callable[..., str]) -> Callable[..., str]:
        @functools.wraps(plain)
        def device_of(group: Any = None) -> str:
            from torch.distributed import distributed_c10d as c10d

            return "cuda" if (group or c10d._get_default_group()) in self._serve_the_device_alone else plain(group)

        return device_of

    def _without_others(self, backend: str | None) -> str | None:
        """A backend's name where the other ranks are not there: gloo would wait for them."""
        if not self.are_simulated:
            return backend
        from torch.testing._internal.distributed import fake_pg  # noqa: F401  registers the fake backend

        if backend is None or backend == "undefined":
            return "cpu:fake,cuda:nccl"
        return re.sub(r"\bgloo\b", "fake", str(backend))

    def _without_gloo(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(plain)
        def new_group(ranks: Any = None, timeout: Any = None, backend: Any = None, *args: Any, **options: Any) -> Any:
            named = backend if backend is None else self._without_others(backend)
            return plain(ranks, timeout, named, *args, **options)

        return new_group

    def _unmonitored(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(plain)
        def monitored_barrier(*args: Any, **options: Any) -> Any:
            return None if self.are_simulated else plain(*args, **options)

        return monitored_barrier


def replace_everywhere(patches: Patches, plain: Any, replacement: Any) -> None:
    """Replace a function under every name by which a loaded module of PyTorch's distributed part has it."""
    name = plain.__name__
    for module in list(sys.modules.values()):
        is_of_torch = getattr(module, "__name__", "").startswith("torch.distributed")
        if is_of_torch and vars(module).get(name) is plain:
            patches.set(module, name, replacement)


class _Options:
    """``ProcessGroupNCCL.Options``: nothing of it changes what a dry run does."""

    def __init__(self, is_high_priority_stream: bool = False) -> None:
        self.is_high_priority_stream = is_high_priority_stream
        self.config = _Options.Config()
        self._timeout: Any = None

    class Config:
        """NCCL's own settings."""


def _nccl_class() -> Any:
    """``ProcessGroupNCCL``: its instances are groups of the fake backend."""

    class Nccl(type):
        def __call__(cls, _store: Any, rank: int, size: int, *_: Any, **__: Any) -> Any:
            return new_fake_group(rank, size)

        def __instancecheck__(cls, instance: object) -> bool:
            from torch._C._distributed_c10d import FakeProcessGroup

            return isinstance(instance, FakeProcessGroup)

    return Nccl("ProcessGroupNCCL", (), {"__module__": "torch.distributed", "Options": _Options})


def new_fake_group(rank: int, size: int) -> Any:
    """A process group that sends nothing."""
    from torch._C._distributed_c10d import FakeProcessGroup

    return getattr(FakeProcessGroup, "_create_internal", FakeProcessGroup)(rank, size)
