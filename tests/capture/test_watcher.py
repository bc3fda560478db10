"""The watcher by itself: what a sink is told of a program on the host, and when."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

import pytest
from typing_extensions import Self

from memscope.capture.ownership import ModulePaths
from memscope.capture.patches import Patches
from memscope.capture.watcher import Call, RunOutermost, Watcher
from memscope.trace.categories import Category
from memscope.trace.schema import MarkKind

torch = pytest.importorskip("torch")


class ListSink:
    """Writes down what it is told; every tensor counts as the device's."""

    def __init__(self, *, looks_again: bool = False) -> None:
        self.looks_again = looks_again
        self.guesses = False
        self.running: list[Any] = []
        self.told: list[tuple[str, str]] = []
        self.errors: list[Exception] = []
        self.to_give: list[tuple[Any, Any]] = []

    def install(self, patches: Patches) -> None:
        """Nothing more is changed."""

    def watched_call(self, call: Call, run_outermost: RunOutermost) -> Call:
        def watched(module: Any, *args: Any, **kwargs: Any) -> Any:
            run = self.run if self.running else run_outermost
            return run(call, module, args, kwargs)

        return watched

    def run(self, call: Call, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self.running.append(module)
        try:
            return call(module, *args, **kwargs)
        finally:
            self.running.pop()

    def refer(self, parameter: Any) -> weakref.ref[Any] | None:
        return None

    def claim(self, tensor: Any, category: Category, label: str) -> None:
        self.told.append((category.label, label))

    def saved(self) -> list[tuple[Any, Any]]:
        given, self.to_give = self.to_give, []
        return given

    def cache_layer(self, cache_id: int, layer: int, shape: Any) -> None:
        """There are no caches."""

    def cache_length(self, cache_id: int, n_tokens: int, device: int) -> None:
        """There are no caches."""

    def flush(self) -> None:
        """All is written down."""

    def mark(self, kind: MarkKind, label: str, *, is_automatic: bool = False) -> None:
        self.told.append((kind.name, label if is_automatic else f"user's {label}"))

    def raised(self, error: Exception) -> None:
        self.errors.append(error)

    def taken(self) -> list[tuple[str, str]]:
        """What was told since the last time."""
        told, self.told = self.told, []
        return told


class Watched:
    """A watcher at work until the block ends."""

    def __init__(self, **options: bool) -> None:
        self.sink = ListSink(**options)
        self.patches = Patches()
        self.watcher = Watcher(self.sink, ModulePaths(), self.patches)

    def __enter__(self) -> Self:
        self.watcher.install()
        return self

    def __exit__(self, *_: object) -> None:
        self.patches.undo()


def model_and_loss() -> tuple[Any, Any]:
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))
    return model, lambda: model(torch.ones(1, 2)).sum()


PASS = [("PHASE_BEGIN", "forward"), ("PHASE_END", "forward")]
WEIGHTS = [("weights", name) for name in ("0.weight", "0.bias", "1.weight", "1.bias")]
GRADIENTS = [("gradients", f"{name}.grad") for _, name in WEIGHTS]


def test_a_models_weights_are_claimed_at_its_first_pass_and_each_pass_is_a_phase() -> None:
    _, loss = model_and_loss()
    with Watched() as watched:
        loss()
        assert watched.sink.taken() == WEIGHTS + PASS
        loss()
        assert watched.sink.taken() == PASS


def test_a_sink_that_has_time_has_them_looked_up_before_every_pass() -> None:
    _, loss = model_and_loss()
    with Watched(looks_again=True) as watched:
        for _ in range(2):
            loss()
            assert watched.sink.taken() == WEIGHTS + PASS


@pytest.mark.parametrize("named", [False, True])
def test_a_closure_runs_outside_of_the_step_that_calls_it(named: bool) -> None:
    model, loss = model_and_loss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def closure() -> float:
        optimizer.zero_grad()
        result = loss()
        result.backward()
        return float(result.detach())

    with Watched() as watched:
        assert optimizer.step(closure=closure) if named else optimizer.step(closure)
        told = [pair for pair in watched.sink.taken() if pair[0].isupper()]
        watched.sink.taken()
        with pytest.raises(ZeroDivisionError):
            optimizer.step(lambda: 1 / 0)
    phases = ("optimizer", "forward", "backward", "optimizer")
    assert told == [(kind, phase) for phase in phases for kind in ("PHASE_BEGIN", "PHASE_END")] + [("STEP", "0")]


def test_a_training_step_is_three_phases_with_gradients_and_states() -> None:
    model, loss = model_and_loss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    with Watched() as watched:
        result = loss()
        watched.sink.taken()
        result.backward()
        assert watched.sink.taken() == [("PHASE_BEGIN", "backward"), ("PHASE_END", "backward"), *GRADIENTS]
        optimizer.step()
        told = watched.sink.taken()
    states = [("optimizer_state", f"momentum_buffer of {name}") for _, name in WEIGHTS]
    assert [pair for pair in told if pair[0] == "optimizer_state"] == states
    assert [pair for pair in told if pair[0].isupper()] == [
        ("PHASE_BEGIN", "optimizer"),
        ("PHASE_END", "optimizer"),
        ("STEP", "0"),
    ]


def test_only_the_first_optimizers_steps_are_steps_of_the_program() -> None:
    with Watched() as watched:
        for number in range(2):
            weight = torch.ones(2, requires_grad=True)
            weight.grad = torch.ones(2)
            optimizer = torch.optim.SGD([weight], lr=0.1)
            optimizer.step()
            assert (("STEP", "0") in watched.sink.taken()) == (number == 0)


def test_a_phase_inside_of_another_is_none_and_the_users_are_always_marked() -> None:
    model, loss = model_and_loss()
    with Watched() as watched:
        watched.watcher.know(model, None)
        watched.sink.taken()

        def run_again(_: Any) -> None:
            loss()

        hook = model[0].weight.register_hook(run_again)
        with watched.watcher.user_phase("mine"):
            loss().backward()
        hook.remove()
        marks = [pair for pair in watched.sink.taken() if pair[0].isupper()]
    backward = [("PHASE_BEGIN", "backward"), ("PHASE_END", "backward")]
    assert marks == [("PHASE_BEGIN", "user's mine"), *PASS, *backward, ("PHASE_END", "user's mine")]


def test_parameters_that_no_model_names_go_by_their_place_in_the_optimizer() -> None:
    kept = torch.ones(2, requires_grad=True)
    with Watched() as watched:
        watched.watcher.know(None, torch.optim.SGD([{"params": [torch.ones(1)]}, {"params": [kept]}], lr=0.1))
        assert watched.sink.taken() == [
            ("weights", "parameter 0 of group 0"),
            ("weights", "parameter 0 of group 1"),
        ]


def test_an_error_is_told_before_the_program_sees_it_and_its_phase_ends() -> None:
    model = torch.nn.Linear(2, 3)
    with Watched() as watched:
        with pytest.raises(RuntimeError) as caught:
            model(torch.ones(1, 5))
        assert watched.sink.errors == [caught.value]
        assert watched.sink.taken()[-1] == ("PHASE_END", "forward")
        assert watched.sink.running == []


def test_what_autograd_saved_is_named_by_the_module_that_ran() -> None:
    model, loss = model_and_loss()
    with Watched() as watched:
        loss()
        watched.sink.taken()
        watched.sink.to_give = [(torch.ones(1), model[1]), (torch.ones(1), None)]
        watched.watcher.scan()
        saved = [label for category, label in watched.sink.taken() if category == "activations"]
    assert saved == ["1", "saved for backward"]


def test_what_is_watched_dies_when_the_program_drops_it() -> None:
    with Watched() as watched:
        model, loss = model_and_loss()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        loss().backward()
        optimizer.step()
        alive = weakref.ref(model), weakref.ref(optimizer)
        del model, loss, optimizer
        gc.collect()
        assert [reference() for reference in alive] == [None, None]
        watched.sink.taken()
        watched.watcher.scan()
        assert watched.sink.taken() == []


def test_a_part_that_is_called_by_itself_keeps_its_name_in_the_whole() -> None:
    model, loss = model_and_loss()
    with Watched() as watched:
        loss()
        model[1](torch.ones(1, 3))
        watched.sink.taken()
        watched.watcher.scan()
        assert watched.sink.taken()[-len(WEIGHTS) :] == WEIGHTS


@pytest.mark.parametrize("looks_again", [False, True])
def test_a_part_is_claimed_by_its_name_in_the_whole_at_once(looks_again: bool) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 3), torch.nn.ReLU())
    model[2].weight = model[0].weight = torch.nn.Parameter(torch.ones(3, 3))  # tied: it goes by its first name
    with Watched(looks_again=looks_again) as watched:
        model(torch.ones(2, 3))
        names = {label for category, label in watched.sink.taken() if category == "weights"}
        assert names == {*dict(model.named_parameters()), *dict(model.named_buffers())}
        for part in (torch.nn.Sequential(model[1], model[2]), model[2]):
            part(torch.ones(2, 3)).sum().backward()
            told = watched.sink.taken()
            assert {label for category, label in told if category == "weights"} <= names
            gradients = {label for category, label in told if category == "gradients"}
            assert gradients == {"0.weight.grad", "1.weight.grad", "1.bias.grad", "2.bias.grad"}


def test_only_the_thread_that_made_it_is_scanned_unless_it_waits() -> None:
    model, _ = model_and_loss()
    with Watched() as watched:
        watched.watcher.know(model, None)
        watched.sink.taken()
        thread = threading.Thread(target=watched.watcher.scan_if_held)
        thread.start()
        thread.join()
        assert watched.sink.taken() == []
        watched.watcher.scan_if_held()
        assert watched.sink.taken() == WEIGHTS


def test_at_the_end_an_open_phase_ends() -> None:
    with Watched() as watched:
        watched.watcher._begin("generate")
        watched.watcher.finish()
        assert watched.sink.taken() == [("PHASE_BEGIN", "generate"), ("PHASE_END", "generate")]
        watched.watcher.scan_if_held()
        assert watched.sink.taken() == []
