"""memscope: GPU memory profiler and fragmentation analyzer for PyTorch.

The public names are loaded on first use, so that importing memscope imports nothing heavy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from memscope.version import __version__

_HOMES: dict[str, str] = {
    "Analysis": "memscope.analysis",
    "Category": "memscope.trace.categories",
    "MemscopeError": "memscope.errors",
    "Trace": "memscope.trace.trace",
    "load": "memscope.analysis",
    "record": "memscope.capture.recorder",
    "register_kv_cache": "memscope.capture.tagging",
    "tag": "memscope.capture.tagging",
}

__all__ = [
    "Analysis",
    "Category",
    "MemscopeError",
    "Trace",
    "__version__",
    "load",
    "record",
    "register_kv_cache",
    "tag",
]

if TYPE_CHECKING:
    from memscope.analysis import Analysis, load
    from memscope.capture.recorder import record
    from memscope.capture.tagging import register_kv_cache, tag
    from memscope.errors import MemscopeError
    from memscope.trace.categories import Category
    from memscope.trace.trace import Trace


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'memscope' has no attribute {name!r}")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return __all__
