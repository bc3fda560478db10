"""Follows a program from the outside: modules that run, backward passes, optimizer steps, caches; what belongs to them.

One watcher serves every way of recording. What it finds goes to a sink: a dry run decides at once whose an allocation
is, a recording on a GPU notes where tensors lie and finds their allocations later.
"""

from __future__ import annotations

import functools
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from memscope.capture._cache_watch import CacheNotes, CacheWatch
from memscope.capture.kv_caches import CacheLeaf
from memscope.capture.ownership import ModulePaths, WeakCollection, joined, named_buffers, reference_to
from memscope.capture.patches import Patches
from memscope.trace.categories import Category
from memscope.trace.schema import MarkKind

_GENERATION = "transformers.generation.utils"
_MODELS = "transformers.modeling_utils"

Call = Callable[..., Any]
"""``Module.__call__``, or what stands for it: the module and its arguments."""
RunOutermost = Callable[[Call, Any, tuple[Any, ...], dict[str, Any]], Any]


class Sink(CacheNotes, Protocol):
    """Where what is found goes, at the moment at which it is."""

    looks_again: bool
    """Whether weights are looked up before every pass, not at a model's first only: no real program's time is lost."""
    guesses: bool
    """Whether what ``generate`` is given and what a pass returns is claimed: where releases are not seen as they
    happen, whose that is cannot be told otherwise."""
    running: list[Any]
    """The modules that are running, the innermost last."""

    def install(self, patches: Patches) -> None:
        """Change in torch what this way of recording needs beside the watcher."""

    def watched_call(self, call: Call, run_outermost: RunOutermost) -> Call:
        """``Module.__call__`` that keeps ``running``; a call inside of no other one goes to ``run_outermost``.

        It is the sink's because it is made for every module: another layer of calls would be felt.
        """

    def run(self, call: Call, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a module while it is in ``running``."""

    def refer(self, parameter: Any) -> weakref.ref[Any] | None:
        """How to know a parameter again; None where its ``id`` has to do."""

    def saved(self) -> Iterable[tuple[Any, Any]]:
        """Tensors that autograd saved since the last time and that were not claimed then, with the module that ran."""

    def mark(self, kind: MarkKind, label: str, *, is_automatic: bool = False) -> None:
        """A phase begins or ends, or a step ended; automatic where the program itself does not say so."""

    def raised(self, error: Exception) -> None:
        """An error leaves a pass or a generation; the program has not seen it yet."""


class Watcher:
    """Finds phases, steps and owners, and tells them to a sink.

    Only the outermost phase counts and is marked: a forward pass inside ``generate`` belongs to ``generate``, the
    recomputation of a checkpoint to ``backward``. Names given by the user are marked at any depth. Only the thread that
    made the watcher is followed.

    Parameters
    ----------
    sink
        Told what is found.
    paths
        Learns the modules of every model that is called or named.
    patches
        Where changes to torch are written down to be undone.
    """

    def __init__(self, sink: Sink, paths: ModulePaths, patches: Patches) -> None:
        self._sink = sink
        self._paths = paths
        self._patches = patches
        self._thread = threading.get_ident()
        self._models, self._optimizers = WeakCollection(), WeakCollection()
        self._names: dict[int, tuple[weakref.ref[Any] | None, str]] = {}
        self._first_optimizer: Callable[[], Any] | None = None
        self._depth = 0
        self._phase = ""
        self._n_steps = self._n_optimizer_steps = 0
        self._watches_generation = self._watches_compiling = False
        self._is_watching = False
        self._caches = CacheWatch(sink)

    def install(self) -> None:
        """Start to watch."""
        import torch
        from torch.nn.modules import module as modules
        from torch.optim import optimizer as optimizers

        patches, module = self._patches, torch.nn.Module
        self._sink.install(patches)
        patches.set(module, "__call__", self._sink.watched_call(module.__call__, self._run_outermost))
        patches.set(torch.autograd, "backward", self._watched_backward(torch.autograd.backward))
        patches.set(torch.autograd, "grad", self._watched_backward(torch.autograd.grad))
        for handle in (
            modules.register_module_parameter_registration_hook(self.look_for_generation),
            optimizers.register_optimizer_step_pre_hook(self._optimizer_begins),
            optimizers.register_optimizer_step_post_hook(self._optimizer_ends),
        ):
            patches.call_at_end(handle.remove)
        self._is_watching = True
        self.look_for_generation()

    def know(self, model: Any, optimizer: Any) -> None:
        """Learn what the user named; None names nothing."""
        if model is not None:
            self._know_model(model)
        if optimizer is not None:
            self._know_optimizer(optimizer)

    def know_cache(self, cache: Any) -> list[tuple[int | None, CacheLeaf]]:
        """Note a cache as it is now; its parts with their numbers."""
        noted = self._caches.note(cache)
        self._sink.flush()
        return noted

    def step(self, name: str | None) -> None:
        """A step of the program ended; the program says so."""
        self._sink.mark(MarkKind.STEP, str(self._n_steps) if name is None else name)
        self._n_steps += 1

    @contextmanager
    def user_phase(self, name: str) -> Iterator[None]:
        """A phase that the user named: always marked, and no boundary of temporaries."""
        self._sink.mark(MarkKind.PHASE_BEGIN, name)
        try:
            yield
        finally:
            self._sink.mark(MarkKind.PHASE_END, name)

    def scan(self) -> None:
        """Claim everything that can be found now: weights, gradients, optimizer states, what autograd saved."""
        self._claim_weights()
        self._claim_gradients()
        for optimizer in self._optimizers:
            self._claim_states(optimizer)
        self._claim_saved()
        self._sink.flush()

    def scan_if_held(self) -> None:
        """Do so unless the program goes on meanwhile.

        In a thread other than the program's own that is done only where the program waits for that thread: in a
        backward pass, which CUDA's autograd runs on threads of its own.
        """
        is_held = threading.get_ident() == self._thread or self._phase == "backward"
        if is_held and self._is_watching:
            self.scan()

    def finish(self) -> None:
        """The recording ends: claim everything; a phase that is open ends here."""
        self.scan()
        self._is_watching = False
        if self._depth:
            self._sink.mark(MarkKind.PHASE_END, self._phase, is_automatic=True)

    def look_for_generation(self, *_: Any) -> None:
        """Make ``generate`` of transformers a phase, once that has been imported: for a model being built, say."""
        mixin = getattr(sys.modules.get(_GENERATION), "GenerationMixin", None)
        if mixin is None or self._watches_generation:
            return
        self._watches_generation = True
        self._caches.install(self._patches)
        self._patches.set(mixin, "generate", self._watched_generate(mixin.generate))

    @contextmanager
    def _in_phase(self, name: str) -> Iterator[None]:
        self._begin(name)
        try:
            yield
        except Exception as error:
            self._sink.raised(error)
            raise
        finally:
            self._end()

    def _begin(self, name: str) -> None:
        self._depth += 1
        if self._depth == 1:
            self._phase = name
            self._sink.mark(MarkKind.PHASE_BEGIN, name, is_automatic=True)

    def _end(self) -> None:
        self._depth -= 1
        if self._depth == 0:
            self._sink.mark(MarkKind.PHASE_END, self._phase, is_automatic=True)
            self._phase = ""

    def _know_model(self, model: Any) -> None:
        is_new = model not in self._models
        if is_new:
            # The largest model comes last, so that what is part of several is called by its place in the whole.
            self._models.add(model, rank=self._paths.learn(model))
            self.look_for_generation()
        if self._sink.looks_again:
            self._claim_model(model)
        elif is_new:
            self._claim_weights()
        self._sink.flush()

    def _know_optimizer(self, optimizer: Any) -> None:
        is_new = optimizer not in self._optimizers
        if is_new:
            self._optimizers.add(optimizer)
        if self._first_optimizer is None:
            self._first_optimizer = reference_to(optimizer)
        if self._sink.looks_again:
            self._claim_stepped(optimizer)
        elif is_new:
            self._claim_weights()
        self._sink.flush()

    def _claim_weights(self) -> None:
        for model in self._models:
            self._claim_model(model)
        for optimizer in self._optimizers:
            self._claim_stepped(optimizer)

    def _claim_model(self, model: Any) -> None:
        renamed = self._paths.in_larger(model)
        for own_name, parameter in model.named_parameters():
            path, _, last = own_name.rpartition(".")
            name = own_name
            if path in renamed:  # tied weights have their name from another module of the larger model
                name = self._name_of(parameter) or joined(renamed[path], last)
            self._names[id(parameter)] = self._sink.refer(parameter), name
            self._sink.claim(parameter, Category.WEIGHTS, name)
        for name, buffer, category in named_buffers(model, renamed):
            self._sink.claim(buffer, category, name)

    def _claim_stepped(self, optimizer: Any) -> None:
        """Claim an optimizer's parameters, of those that no model names."""
        for name, parameter in _stepped(optimizer):
            known = self._name_of(parameter)
            if known is None:
                self._names[id(parameter)] = self._sink.refer(parameter), name
            if known in (None, name):
                self._sink.claim(parameter, Category.WEIGHTS, name)

    def _claim_gradients(self) -> None:
        seen = set()
        for name, parameter in self._parameters():
            if parameter.grad is not None and id(parameter) not in seen:
                seen.add(id(parameter))
                label = f"{self._name_of(parameter) or name}.grad"
                self._sink.claim(parameter.grad, Category.GRADIENTS, label)

    def _parameters(self) -> Iterator[tuple[str, Any]]:
        """Every known parameter with a name, some more than once: of models, of optimizers, of models that are gone."""
        for model in self._models:
            yield from model.named_parameters()
        for optimizer in self._optimizers:
            yield from _stepped(optimizer)
        for reference, name in list(self._names.values()):
            parameter = None if reference is None else reference()
            if parameter is not None:
                yield name, parameter

    def _name_of(self, parameter: Any) -> str | None:
        reference, name = self._names.get(id(parameter), (None, None))
        return name if reference is None or reference() is parameter else None

    def _claim_states(self, optimizer: Any) -> None:
        for parameter, state in optimizer.state.items():
            owner = self._name_of(parameter) or "a parameter"
            for key, value in state.items() if isinstance(state, Mapping) else ():
                self._sink.claim(value, Category.OPTIMIZER_STATE, f"{key} of {owner}")

    def _claim_saved(self) -> None:
        for tensor, module in self._sink.saved():
            place = "saved for backward" if module is None else self._paths.of(module)
            self._sink.claim(tensor, Category.ACTIVATIONS, place)

    def _claim_arguments(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """What the outermost module is given is an input, unless another module's graph made it."""
        named = (*((f"argument {position}", value) for position, value in enumerate(args)), *kwargs.items())
        for label, value in named:
            if getattr(value, "is_cuda", False) and getattr(value, "grad_fn", None) is None:
                self._sink.claim(value, Category.INPUTS, label)

    def _claim_outputs(self, result: Any) -> None:
        """What the outermost module returns."""
        if isinstance(result, Mapping):
            named = list(result.items())
        elif isinstance(result, tuple | list):
            named = [(str(position), value) for position, value in enumerate(result)]
        else:
            named = [("result", result)]
        for name, value in named:
            if getattr(value, "is_cuda", False):
                self._sink.claim(value, Category.ACTIVATIONS, f"output {name}")

    def _run_outermost(self, call: Call, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self._know_model(module)
        if self._phase != "backward":  # a block that is computed again there is given what the forward pass made
            self._claim_arguments(args, kwargs)
        self._caches.begins(kwargs)
        self._sink.flush()
        with self._in_phase("forward"):
            result = self._sink.run(call, module, args, kwargs)
        self._caches.ended(args, kwargs, result)
        if self._sink.guesses:
            self._claim_outputs(result)
        self._claim_saved()
        self._sink.flush()
        return result

    def _watched_backward(self, backward: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: Any, **kwargs: Any) -> Any:
            if threading.get_ident() != self._thread:
                return backward(*args, **kwargs)
            self._claim_saved()
            self._sink.flush()
            with self._in_phase("backward"):
                result = backward(*args, **kwargs)
            self._claim_gradients()
            self._sink.flush()
            return result

        return watched

    def _optimizer_begins(self, optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Begin the phase; what the step is given to call is the program's own, and told from the optimizer's work."""
        self._know_optimizer(optimizer)
        self._claim_gradients()
        self._sink.flush()
        self._begin("optimizer")
        if len(args) > 1 and callable(args[1]):
            return (args[0], self._outside(args[1]), *args[2:]), kwargs
        if callable(kwargs.get("closure")):
            return args, {**kwargs, "closure": self._outside(kwargs["closure"])}
        return None

    def _outside(self, closure: Callable[..., Any]) -> Callable[..., Any]:
        """A closure that runs outside of the phase of the step that calls it."""

        @functools.wraps(closure)
        def outside(*args: Any, **kwargs: Any) -> Any:
            if self._depth != 1 or self._phase != "optimizer" or threading.get_ident() != self._thread:
                return closure(*args, **kwargs)
            self._end()
            try:
                return closure(*args, **kwargs)
            finally:
                self._claim_gradients()
                self._sink.flush()
                self._begin("optimizer")

        return outside

    def _optimizer_ends(self, optimizer: Any, *_: Any) -> None:
        self._claim_states(optimizer)
        if not self._sink.looks_again:
            self._claim_weights()
        self._sink.flush()
        self._end()
        if self._first_optimizer is not None and self._first_optimizer() is optimizer:
            self._sink.mark(MarkKind.STEP, str(self._n_optimizer_steps), is_automatic=True)
            self._n_optimizer_steps += 1

    def _watched_generate(self, generate: Callable[..., Any]) -> Callable[..., Any]:
        def watched(model: Any, *args: Any, **kwargs: Any) -> Any:
            if threading.get_ident() != self._thread:
                return generate(model, *args, **kwargs)
            self._know_model(model)
            self._watch_compiling()
            if self._sink.guesses:
                self._claim_arguments(args, kwargs)
            self._sink.flush()
            with self._in_phase("generate"):
                return generate(model, *args, **kwargs)

        return watched

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
                if threading.get_ident() != self._thread or self._sink.running:
                    return compiled(*args, **kwargs)
                return self._run_outermost(run, model, args, kwargs)

            return called

        self._patches.set(model_class, "get_compiled_call", watched)


def _stepped(optimizer: Any) -> Iterator[tuple[str, Any]]:
    """An optimizer's parameters, with a name for those that no model names."""
    for group, settings in enumerate(getattr(optimizer, "param_groups", ())):
        for position, parameter in enumerate(settings["params"]):
            yield f"parameter {position} of group {group}", parameter
