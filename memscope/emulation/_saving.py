"""Checkpoints of a program on the emulated device: they were never computed, and take no other file's place."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

_written: set[Path] = set()
"""What this process wrote itself, and may write again."""


def keep_files_of_torch(torch: ModuleType) -> None:
    """Let ``torch.save`` replace no file that the program did not write itself."""
    torch.save = _keeping(torch.save, "f")  # type: ignore[attr-defined]
    torch.serialization.save = torch.save


def keep_files_of_safetensors(module: ModuleType) -> None:
    """Let ``save_file`` replace no file that the program did not write itself."""
    module.save_file = _keeping(module.save_file, "filename")  # type: ignore[attr-defined]


def _keeping(save: Callable[..., Any], name: str) -> Callable[..., Any]:
    """A function that writes into its second argument, which is called so, unless another program's file is there."""

    @functools.wraps(save)
    def saved(obj: Any, *args: Any, **options: Any) -> Any:
        target = args[0] if args else options.get(name)
        if not isinstance(target, str | os.PathLike):
            return save(obj, *args, **options)
        path = Path(target).resolve()
        if path.exists() and path not in _written:
            sys.stderr.write(
                f"memscope: emulated device: {target} is there already, and is left as it is: what would be saved was "
                "never computed\n"
            )
            return None
        result = save(obj, *args, **options)
        _written.add(path)
        return result

    return saved
