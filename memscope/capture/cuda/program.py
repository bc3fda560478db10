"""What a program on a GPU is doing: its modules, backward passes, optimizer steps and caches; and what belongs to them.

The program runs as it would: what is found is only looked at, where it lies is noted with the allocator's count.
"""

from __future__ import annotations

import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from memscope.capture.cache_watch import CacheWatch
from memscope.capture.cuda.event_counter import EventCounter
from memscope.capture.cuda.notes import DeviceNotes
from memscope.capture.cuda.saved_tensors import SavedTensors
from memscope.capture.kv_caches import CacheLeaf
from memscope.capture.ownership import named_buffers
from memscope.capture.patches import Patches
from memscope.trace.categories import Category
from memscope.trace.recording.notes import MarkNote, RecordingNotes
from memscope.trace.schema import MarkKind

_GENERATION = "transformers.generation.utils"
_MODELS = "transformers.modeling_utils"


class CudaProgram:
    """Follows a program from the outside and notes phases, steps and owners.

    Parameters
    ----------
    log
        Where they are noted.
    counter
        The allocator's count.
    patches
        Where changes to torch are written down to be undone.
    on_error
        Told of what the program raises out of a forward or backward pass or a generation, before the program sees it.
    """

    def __init__(
        self, log: RecordingNotes, counter: EventCounter, patches: Patches, *, on_error: Callable[[BaseException], None]
    ) -> None:
        self._log = log
        self._on_error = on_error
        self._counter = counter
        self._patches = patches
        self._notes = DeviceNotes(log, counter)
        self._caches = CacheWatch(self._notes)
        self._thread = threading.get_ident()
        self._models: weakref.WeakSet[Any] = weakref.WeakSet()
        self._plain_models: list[Any] = []
        self._optimizers: dict[int, Any] = {}
        self._paths: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()
        self._running: list[Any] = []
        self._names: dict[int, str] = {}
        self._saved = SavedTensors(self._running, log.visits)
        log.name_of = self._name_of
        self._depth = 0
        self._phase = ""
        self._n_steps = self._n_optimizer_steps = 0
        self._first_optimizer: int | None = None
        self._watches_generation = self._watches_compiling = False
        self._is_watching = False

    def install(self) -> None:
        """Start to watch."""
        import torch
        from torch.nn.modules import module as modules
        from torch.optim import optimizer as optimizers

        patches = self._patches
        patches.set(torch.nn.Module, "__call__", self._watched_call(torch.nn.Module.__call__))
        patches.set(torch.autograd, "backward", self._watched_backward(torch.autograd.backward))
        patches.set(torch.autograd, "grad", self._watched_backward(torch.autograd.grad))
        for handle in (
            modules.register_module_parameter_registration_hook(self._registered),
            optimizers.register_optimizer_step_pre_hook(self._optimizer_begins),
            optimizers.register_optimizer_step_post_hook(self._optimizer_ends),
        ):
            patches.call_at_end(handle.remove)
        self._saved.install(patches)
        self._is_watching = True
        self._watch_generation()

    def know(self, model: Any, optimizer: Any) -> None:
        """Learn what the user named."""
        if model is not None:
            self._know_model(model)
        if optimizer is not None:
            self._know_optimizer(optimizer)

    def step(self, name: str | None) -> None:
        """A step of the program ended."""
        self.scan()
        self._mark(MarkKind.STEP, str(self._n_steps) if name is None else name)
        self._n_steps += 1

    @contextmanager
    def user_phase(self, name: str) -> Iterator[None]:
        """A phase that the user named: always marked, and no boundary of temporaries."""
        self._mark(MarkKind.PHASE_BEGIN, name)
        try:
            yield
        finally:
            self._mark(MarkKind.PHASE_END, name)

    def know_cache(self, cache: Any) -> list[tuple[int | None, CacheLeaf]]:
        """Note a cache as it is now; its parts with their numbers."""
        noted = self._caches.note(cache)
        self._notes.flush()
        return noted

    def scan(self) -> None:
        """Note everything that can be found now."""
        self._note_weights()
        self._note_gradients()
        for optimizer in list(self._optimizers.values()):
            self._note_states(optimizer)
        self._note_saved()
        self._notes.flush()

    def finish(self) -> None:
        """The recording ends: a phase that is open ends here."""
        self.scan()
        self._is_watching = False
        if self._depth:
            self._mark(MarkKind.PHASE_END, self._phase, is_automatic=True)

    def ran_out(self) -> None:
        """Memory ran out: note what holds it.

        In a thread other than the program's own that is done only where the program waits for that thread: in a
        backward pass, which CUDA's autograd runs on threads of its own.
        """
        is_held = threading.get_ident() == self._thread or self._phase == "backward"
        if is_held and self._is_watching:
            self.scan()

    def _path_of(self, module: Any) -> str:
        return self._paths.get(module) or type(module).__name__

    def _name_of(self, visited: Any) -> str:
        """Path of a module that was visited, empty where none was, or it is gone."""
        module = None if visited is None else visited()
        return "" if module is None else self._path_of(module)

    def _mark(self, kind: MarkKind, label: str, *, is_automatic: bool = False) -> None:
        self._log.marks.append(MarkNote(self._counter.calls(), time.time_ns(), int(kind), label, is_automatic))

    @contextmanager
    def _in_phase(self, name: str) -> Iterator[None]:
        self._begin(name)
        try:
            yield
        except Exception as error:
            self._on_error(error)
            raise
        finally:
            self._end()

    def _begin(self, name: str) -> None:
        """Enter a phase; only the outermost one counts."""
        self._depth += 1
        if self._depth == 1:
            self._phase = name
            self._mark(MarkKind.PHASE_BEGIN, name, is_automatic=True)

    def _end(self) -> None:
        self._depth -= 1
        if self._depth == 0:
            self._mark(MarkKind.PHASE_END, self._phase, is_automatic=True)
            self._phase = ""

    def _know_model(self, model: Any) -> None:
        try:
            if model in self._models:
                return
            self._models.add(model)
        except TypeError:  # it cannot be referred to weakly
            self._plain_models.append(model)
        for name, module in model.named_modules():
            with suppress(TypeError):
                if name or module not in self._paths:
                    self._paths[module] = name or type(module).__name__
        if not self._watches_generation:
            self._watch_generation()
        self._note_weights()
        self._notes.flush()

    def _know_optimizer(self, optimizer: Any) -> None:
        if id(optimizer) not in self._optimizers:
            self._optimizers[id(optimizer)] = optimizer
            if self._first_optimizer is None:
                self._first_optimizer = id(optimizer)

    def _known_models(self) -> Iterator[Any]:
        yield from list(self._models)
        yield from self._plain_models

    def _note_weights(self) -> None:
        names = self._names
        for model in self._known_models():
            for name, parameter in model.named_parameters():
                names[id(parameter)] = name
                self._notes.add(parameter, Category.WEIGHTS, name)
            for name, buffer, category in named_buffers(model):
                self._notes.add(buffer, category, name)
        for optimizer in list(self._optimizers.values()):
            for parameter, name in _stepped(optimizer):
                if names.setdefault(id(parameter), name) == name:
                    self._notes.add(parameter, Category.WEIGHTS, name)

    def _note_gradients(self) -> None:
        seen = set()
        named = [pair for model in self._known_models() for pair in model.named_parameters()]
        stepped = [pair for optimizer in list(self._optimizers.values()) for pair in _stepped(optimizer)]
        for name, parameter in [*named, *((name, parameter) for parameter, name in stepped)]:
            if parameter.grad is not None and id(parameter) not in seen:
                seen.add(id(parameter))
                self._notes.add(parameter.grad, Category.GRADIENTS, f"{self._names.get(id(parameter), name)}.grad")

    def _note_states(self, optimizer: Any) -> None:
        for parameter, state in optimizer.state.items():
            owner = self._names.get(id(parameter), "a parameter")
            for key, value in state.items() if isinstance(state, Mapping) else ():
                self._notes.add(value, Category.OPTIMIZER_STATE, f"{key} of {owner}")

    def _note_saved(self) -> None:
        for tensor, module in self._saved.take():
            place = "saved for backward" if module is None else self._path_of(module)
            self._notes.add(tensor, Category.ACTIVATIONS, place)

    def _watched_call(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """``Module.__call__``, in the place of torch's own in the stacks rather than as one more frame."""
        import torch

        running, thread, get_ident = self._running, self._thread, threading.get_ident
        visit, now, ref = self._log.visits.extend, time.time_ns, weakref.ref
        is_torch_own = call is getattr(torch.nn.Module, "_wrapped_call_impl", None)
        is_compiling = torch.compiler.is_dynamo_compiling

        def watched(module: Any, *args: Any, **kwargs: Any) -> Any:
            # What is compiled is followed from outside: none of this may become part of it, or break it.
            if is_compiling() or get_ident() != thread:
                return call(module, *args, **kwargs)
            if not running:
                return self._run_outermost(call, module, args, kwargs)
            running.append(module)
            visit((now(), ref(module)))
            try:
                if is_torch_own and module._compiled_call_impl is None:
                    return module._call_impl(*args, **kwargs)
                return call(module, *args, **kwargs)
            finally:
                running.pop()
                visit((now(), ref(running[-1])))

        return watched

    def _run_outermost(
        self, call: Callable[..., Any], module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        self._know_model(module)
        for position, value in enumerate(args):
            self._note_input(value, f"argument {position}")
        for name, value in kwargs.items():
            self._note_input(value, name)
        self._caches.begins(kwargs)
        self._notes.flush()
        with self._in_phase("forward"):
            self._running.append(module)
            self._log.visits.extend((time.time_ns(), weakref.ref(module)))
            try:
                result = call(module, *args, **kwargs)
            finally:
                self._running.pop()
            self._caches.ended(args, kwargs, result)
            self._note_outputs(result)
            self._note_saved()
            self._notes.flush()
        return result

    def _note_input(self, value: Any, label: str) -> None:
        """What the outermost module is given is an input, unless another module's graph made it."""
        if getattr(value, "is_cuda", False) and getattr(value, "grad_fn", None) is None:
            self._notes.add(value, Category.INPUTS, label)

    def _note_outputs(self, result: Any) -> None:
        """What the outermost module returns."""
        if isinstance(result, Mapping):
            named = list(result.items())
        elif isinstance(result, tuple | list):
            named = [(str(position), value) for position, value in enumerate(result)]
        else:
            named = [("result", result)]
        for name, value in named:
            if getattr(value, "is_cuda", False):
                self._notes.add(value, Category.ACTIVATIONS, f"output {name}")

    def _watched_backward(self, backward: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: Any, **kwargs: Any) -> Any:
            if threading.get_ident() != self._thread:
                return backward(*args, **kwargs)
            self._note_saved()
            self._notes.flush()
            with self._in_phase("backward"):
                result = backward(*args, **kwargs)
                self._note_gradients()
                self._notes.flush()
            return result

        return watched

    def _optimizer_begins(self, optimizer: Any, *_: Any) -> None:
        if id(optimizer) not in self._optimizers:
            self._know_optimizer(optimizer)
            self._note_weights()
        self._note_gradients()
        self._notes.flush()
        self._begin("optimizer")

    def _optimizer_ends(self, optimizer: Any, *_: Any) -> None:
        self._note_states(optimizer)
        self._note_weights()
        self._notes.flush()
        self._end()
        if id(optimizer) == self._first_optimizer:
            self._mark(MarkKind.STEP, str(self._n_optimizer_steps), is_automatic=True)
            self._n_optimizer_steps += 1

    def _registered(self, *_: Any) -> None:
        """A model is being built: transformers may have been imported for it."""
        if not self._watches_generation:
            self._watch_generation()

    def _watch_generation(self) -> None:
        """Make ``generate`` of transformers a phase, once that has been imported."""
        mixin = getattr(sys.modules.get(_GENERATION), "GenerationMixin", None)
        if mixin is None:
            return
        self._watches_generation = True
        self._caches.install(self._patches)
        generate = mixin.generate

        def watched(model: Any, *args: Any, **kwargs: Any) -> Any:
            if threading.get_ident() != self._thread:
                return generate(model, *args, **kwargs)
            self._know_model(model)
            self._watch_compiling()
            for position, value in enumerate(args):
                self._note_input(value, f"argument {position}")
            for name, value in kwargs.items():
                self._note_input(value, name)
            self._notes.flush()
            with self._in_phase("generate"):
                return generate(model, *args, **kwargs)

        self._patches.set(mixin, "generate", watched)

    def _watch_compiling(self) -> None:
        """Watch how ``generate`` calls a model that it has compiled: from outside, as a compiled module is called."""
        model_class = getattr(sys.modules.get(_MODELS), "PreTrainedModel", None)
        compiled_call = vars(model_class).get("get_compiled_call") if model_class is not None else None
        if self._watches_compiling or compiled_call is None:
            return
        self._watches_compiling = True

        def watched(model: Any, *args: Any, **kwargs: Any) -> Any:
            compiled = compiled_call(model, *args, **kwargs)

            def run(_: Any, *args: Any, **kwargs: Any) -> Any:
                return compiled(*args, **kwargs)

            def called(*args: Any, **kwargs: Any) -> Any:
                if threading.get_ident() != self._thread or self._running:
                    return compiled(*args, **kwargs)
                return self._run_outermost(run, model, args, kwargs)

            return called

        self._patches.set(model_class, "get_compiled_call", watched)


def _stepped(optimizer: Any) -> Iterator[tuple[Any, str]]:
    """An optimizer's parameters, with a name for those that no model names."""
    for group, settings in enumerate(getattr(optimizer, "param_groups", ())):
        for position, parameter in enumerate(settings["params"]):
            yield parameter, f"parameter {position} of group {group}"
