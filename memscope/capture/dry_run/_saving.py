"""Checkpoints in a dry run: files with the names, shapes and types of what a program saves, and no values.

A saved tensor of a dry run takes the place of one number in a ``torch.save`` file, and none of the disk's in a
safetensors file, whose data is a hole that reads as zeros. What is loaded again has the shapes, and lies on the device
where the program saved it from there.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memscope.capture.dry_run._operations import OperationRouter
from memscope.capture.dry_run._storages import StorageTable
from memscope.capture.dry_run.values import known as known_values
from memscope.capture.patches import Patches
from memscope.capture.stacks import user_line

if TYPE_CHECKING:
    import torch

_ON_DEVICE = "cuda:0"


class Saving:
    """Lets a program write checkpoints, and read them.

    Parameters
    ----------
    router, storages
        What tells device tensors, and where they lie in the simulated device.
    """

    def __init__(self, router: OperationRouter, storages: StorageTable) -> None:
        import torch
        from torch._subclasses.fake_tensor import FakeTensor

        self._router = router
        self._storages = storages
        self._fake_type = FakeTensor
        self._has_said = False
        self._has_stood_in = False
        self._written: set[Path] = set()
        self._from_device: dict[int, Any] = {}  # by storage, which are kept until the file is written
        self._plain_load, self._plain_save = torch.load, torch.save

    def install(self, patches: Patches) -> None:
        """Put the replacements in place."""
        import torch

        patches.set(self._fake_type, "__reduce_ex__", lambda tensor, protocol: self._reduced(tensor, protocol))
        patches.set(torch.serialization, "location_tag", self._tagging(torch.serialization.location_tag))
        patches.set(torch, "load", self._load)
        patches.set(torch, "save", self._save)
        for owner, method, replacement in (
            (torch.Tensor, "data_ptr", self._address_of),
            (torch.UntypedStorage, "data_ptr", self._storage_address),
        ):
            patches.set(owner, method, replacement(getattr(owner, method)))
        if find_spec("safetensors") is not None:
            self._install_safetensors(patches)

    def _install_safetensors(self, patches: Patches) -> None:
        import safetensors.torch as safetensors

        plain = safetensors.save_file
        saving = self._sparsely(plain)
        for module in list(sys.modules.values()):  # libraries keep the function by names of their own
            for name in ("save_file", "safe_save_file"):
                if getattr(module, "__dict__", {}).get(name) is plain:
                    patches.set(module, name, saving)

    def _say(self) -> None:
        if not self._has_said:
            self._has_said = True
            sys.stderr.write(
                f"memscope: dry run: {user_line()} saves tensors, which have no values here: "
                "the file gets their names, shapes and types (said once)\n"
            )

    def _stand_in(self, tensor: Any) -> torch.Tensor:
        """A real tensor of the same shape and type: with its values where they are known, else of one number."""
        import torch
        from torch.utils._python_dispatch import _disable_current_modes

        known = known_values.value_of(tensor)
        with _disable_current_modes():
            value = torch.zeros((), dtype=tensor.dtype).expand(tuple(tensor.shape)) if known is None else known.clone()
            if getattr(tensor, "_is_param", False):
                value = torch.nn.Parameter(value, requires_grad=tensor.requires_grad)
        return value

    def _reduced(self, tensor: Any, protocol: Any) -> Any:
        """How a fake tensor is pickled: as its stand-in."""
        from torch.utils._python_dispatch import _disable_current_modes

        self._say()
        self._has_stood_in = True
        value = self._stand_in(tensor)
        with _disable_current_modes():
            if self._router.is_device_tensor(tensor):
                self._from_device[value.untyped_storage()._cdata] = value
            return value.__reduce_ex__(protocol)

    def _save(self, obj: Any, f: Any, *args: Any, **options: Any) -> Any:
        """``torch.save``: a file that the program did not write itself is never replaced by one without values."""
        try:
            return self._saved(obj, f, *args, **options)
        finally:
            self._from_device.clear()

    def _saved(self, obj: Any, f: Any, *args: Any, **options: Any) -> Any:
        if not isinstance(f, str | os.PathLike):
            return self._plain_save(obj, f, *args, **options)
        path = Path(f)
        beside = path.with_name(f"{path.name}.{os.getpid()}.part") if path.exists() else path
        self._has_stood_in = False
        try:
            self._plain_save(obj, beside, *args, **options)
            if not self._has_stood_in or self._may_write_over(path, is_there=beside is not path):
                if beside is not path:
                    beside.replace(path)
                self._written.add(path.absolute())
        finally:
            if beside is not path:
                beside.unlink(missing_ok=True)
        return None

    def _may_write_over(self, path: Path, *, is_there: bool) -> bool:
        """Whether a file without values may be written there; says so where it may not."""
        if not is_there or path.absolute() in self._written:
            return True
        sys.stderr.write(
            f"memscope: dry run: {path} is there already, and is left as it is: what would replace it has no values\n"
        )
        return False

    def _tagging(self, plain: Callable[[Any], str]) -> Callable[[Any], str]:
        """Where a storage is said to have been: on the device if what it stands in for was."""

        def location_tag(storage: Any) -> str:
            is_from_device = getattr(storage, "_cdata", None) in self._from_device
            return _ON_DEVICE if is_from_device else plain(storage)

        return location_tag

    def _load(self, file: Any, map_location: Any = None, **options: Any) -> Any:
        """``torch.load``: files are read on the host for real, and moved where they were or the program wants them."""
        from torch.nn import Module
        from torch.utils._python_dispatch import _disable_current_modes
        from torch.utils._pytree import tree_map

        from_device: set[int] = set()

        def keep_on_host(storage: Any, location: str) -> Any:
            if location.startswith("cuda"):
                from_device.add(storage._cdata)
            return storage

        with _disable_current_modes():
            loaded = self._plain_load(file, map_location=keep_on_host, **options)
        if map_location is not None and not str(map_location).startswith("cuda"):
            return loaded

        def placed(part: Any) -> Any:
            if isinstance(part, Module):  # a model that was saved whole
                return part._apply(placed)
            if not hasattr(part, "untyped_storage"):
                return part
            return part.cuda() if map_location is not None or part.untyped_storage()._cdata in from_device else part

        return tree_map(placed, loaded)

    def _address_of(self, plain: Callable[[Any], int]) -> Callable[[Any], int]:
        def data_ptr(tensor: Any) -> int:
            if self._router.is_tracing or not isinstance(tensor, self._fake_type):
                return plain(tensor)
            offset = tensor.storage_offset() * tensor.element_size()
            return self._lies_at(tensor.untyped_storage()) + int(offset) if tensor.numel() else 0

        return data_ptr

    def _storage_address(self, plain: Callable[[Any], int]) -> Callable[[Any], int]:
        def data_ptr(storage: Any) -> int:
            is_real = self._router.is_tracing or storage.device.type != "meta"
            return plain(storage) if is_real else self._lies_at(storage)

        return data_ptr

    def _lies_at(self, storage: Any) -> int:
        """The address in the simulated device; for the host's fake memory a number of its own."""
        address = self._storages.address_of(storage)
        return int(storage._cdata) if address is None else address

    def _sparsely(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        def save_file(tensors: dict[str, Any], filename: Any, metadata: dict[str, str] | None = None) -> Any:
            if not any(isinstance(tensor, self._fake_type) for tensor in tensors.values()):
                return plain(tensors, filename, metadata)
            self._say()
            if self._may_write_over(Path(filename), is_there=Path(filename).exists()):
                _write_sparse(tensors, Path(filename), metadata)
                self._written.add(Path(filename).absolute())
            return None

        return save_file


def _write_sparse(tensors: dict[str, Any], path: Path, metadata: dict[str, str] | None) -> None:
    """Write a safetensors file (eight bytes of length, a JSON header, data) whose data is a hole."""
    from safetensors.torch import _TYPES

    names = {dtype: name for name, dtype in _TYPES.items()}
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    end = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0])):
        begin, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": names[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.flush()
        os.truncate(file.fileno(), 8 + len(text) + end)
