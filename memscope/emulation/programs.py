"""What PyTorch and transformers must be told when they run on a device that computes nothing.

Both are adapted as soon as the program imports them, and not before: a program that never does pays nothing.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

from memscope.emulation._known_values import follow_values
from memscope.emulation._saving import keep_files_of_safetensors, keep_files_of_torch
from memscope.emulation.launch import RAN_EAGERLY, note


def adapt_programs() -> None:
    """Adapt torch and transformers in this process when they are imported; a second call does nothing."""
    if not any(isinstance(finder, _AdaptingFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AdaptingFinder())


def _without_cudnn(torch: ModuleType) -> None:
    """Switch cuDNN off: the stand-in for it has no plans, so that every use of it would fail."""
    torch.backends.cudnn.enabled = False
    torch.backends.cuda.enable_cudnn_sdp(False)


def _without_inductor(torch: ModuleType) -> None:
    """Run eagerly what ``torch.compile`` would have Inductor make kernels of, which it cannot without Triton.

    Other backends do as they do. ``generate`` compiles by itself where the cache is static. Where Triton is installed
    nothing is changed: its kernels are compiled, loaded and launched, and a launch does nothing.
    """
    plain = torch.compile

    @functools.wraps(plain)
    def compile_(model: Any = None, *args: Any, **options: Any) -> Any:
        if options.get("backend", "inductor") != "inductor":
            return plain(model, *args, **options)
        note(RAN_EAGERLY)
        return (lambda given: given) if model is None else model

    torch.compile = compile_  # type: ignore[attr-defined]


def _adapted_torch(torch: ModuleType) -> None:
    _without_cudnn(torch)
    if importlib.util.find_spec("triton") is None:
        _without_inductor(torch)
    follow_values(torch)
    keep_files_of_torch(torch)


def _generation_that_ends(utils: ModuleType) -> None:
    """Let ``generate()`` end by the length that it was given.

    Whether every sequence is finished is a value on the device, and reads as "no" for ever. The length is known to the
    host: when the length criterion was met, the loop's next question is answered from it.
    """
    criterion, mixin = utils.MaxLengthCriteria, utils.GenerationMixin
    judge, ask = criterion.__call__, mixin._has_unfinished_sequences
    is_met = [False]

    def judged(self: Any, input_ids: Any, *args: Any, **kwargs: Any) -> Any:
        is_met[0] = input_ids.is_cuda and input_ids.shape[1] >= self.max_length
        return judge(self, input_ids, *args, **kwargs)

    def asked(self: Any, *args: Any, **kwargs: Any) -> Any:
        if is_met[0]:
            is_met[0] = False
            return False
        return ask(self, *args, **kwargs)

    criterion.__call__, mixin._has_unfinished_sequences = judged, asked


_ADAPTATIONS: dict[str, Callable[[ModuleType], None]] = {
    "torch": _adapted_torch,
    "safetensors.torch": keep_files_of_safetensors,
    "transformers.generation.utils": _generation_that_ends,
}


class _AdaptingFinder(MetaPathFinder):
    """Finds the modules to adapt where Python would, and adapts each after it was executed."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in _ADAPTATIONS:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _AdaptingLoader(spec.loader, _ADAPTATIONS[fullname])
        return spec


class _AdaptingLoader(Loader):
    """A loader that calls a function with each module it has executed; everything else is the loader's behind it."""

    def __init__(self, loader: Any, adapt: Callable[[ModuleType], None]) -> None:
        self._loader = loader
        self._adapt = adapt

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        self._adapt(module)
