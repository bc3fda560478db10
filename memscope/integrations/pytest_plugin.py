"""GPU memory of tests: limits, leaks, baselines, and a table at the end. The names are pytest-memray's.

::

    @pytest.mark.limit_gpu_memory("24 GB")            # of what the test allocates, at its peak
    @pytest.mark.limit_gpu_leaks("1 MB")              # at any one line of code, of what outlives the test
    @pytest.mark.gpu_memory_baseline("train-step")    # what it used to need, in gpu-memory-baselines/train-step.json

``pytest --memscope`` measures every test. Where there is no GPU tests run dry: on tensors without values, whose memory
is predicted. A test that has a marker or asks for the fixture ``gpu_memory`` is measured without the option; where none
does, nothing is imported and nothing is recorded.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from memscope.capture.recorder import Recorder
    from memscope.integrations._test_memory import Limits, Measured, Way

MARKERS = {
    "limit_gpu_memory": "limit_gpu_memory(size): fail the test if it needs more of a GPU than this, such as '24 GB'",
    "limit_gpu_leaks": "limit_gpu_leaks(size): fail the test if more than this outlives it at any one line of code",
    "gpu_memory_baseline": "gpu_memory_baseline(name, tolerance='1%'): fail the test if it needs more than it used to",
}
_NOT_IN_NAMES = re.compile(r"[^\w.-]+")
_MEMORY = pytest.StashKey["TestMemory"]()
_PROPERTIES = ("gpu_memory_peak_bytes", "gpu_memory_n_allocations", "gpu_memory_is_predicted")
_NOTE = "gpu_memory_note"
"""What a test needed, among its properties: JUnit's XML has them, and processes of a parallel run send them."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options, all of them under one heading."""
    group = parser.getgroup("memscope", "GPU memory of tests (memscope)")
    group.addoption("--memscope", action="store_true", help="measure the GPU memory of every test")
    group.addoption(
        "--memscope-device",
        choices=("auto", "cuda", "dry-run"),
        default=None,
        help="how tests are measured: on the GPU, or dry; auto takes the GPU where there is one",
    )
    group.addoption("--memscope-gpu", metavar="NAME", help="dry: the GPU to stand in for, such as H100-80GB or 24GiB")
    group.addoption("--memscope-bin-path", metavar="DIR", help="keep the recording of each test that is measured")
    group.addoption("--memscope-update-baselines", action="store_true", help="write the baselines of tests anew")
    group.addoption("--memscope-most-allocations", type=int, default=10, metavar="N", help="rows of the table")
    group.addoption("--hide-memscope-summary", action="store_true", help="print no table at the end")
    parser.addini("memscope_device", "how tests are measured: auto, cuda or dry-run", default="auto")
    parser.addini("memscope_gpu", "dry: the GPU to stand in for", default="")
    parser.addini("memscope_baselines", "the folder of baselines", default="gpu-memory-baselines")


def pytest_configure(config: pytest.Config) -> None:
    """Make the markers known."""
    for words in MARKERS.values():
        config.addinivalue_line("markers", words)
    config.pluginmanager.register(_Table(config), "memscope-table")


class TestMemory:
    """The memory of one test, as the fixture ``gpu_memory`` gives it."""

    __test__ = False

    def __init__(self, item: pytest.Item) -> None:
        self._item = item
        self._recorder: Recorder | None = None
        self._asked: dict[str, int] = {}

    def step(self, name: str | None = None) -> None:
        """Say that a step of the program ended."""
        self._running().step(name)

    def phase(self, name: str) -> AbstractContextManager[None]:
        """Mark a phase: ``with gpu_memory.phase("prefill"): …``."""
        return self._running().phase(name)

    def limit(self, peak: str | None = None, leaks: str | None = None) -> None:
        """Hold the test to sizes that it works out itself, as the markers do to fixed ones.

        Raises
        ------
        UsageError
            If one is no size.
        """
        from memscope.units import parse_bytes

        if peak is not None:
            self._asked["peak_bytes"] = parse_bytes(peak)
        if leaks is not None:
            self._asked["leak_bytes"] = parse_bytes(leaks)

    def _running(self) -> Recorder:
        assert self._recorder is not None
        return self._recorder

    def start(self) -> None:
        """Begin to record, if that has not begun."""
        if self._recorder is None:
            from memscope.gpus import DEFAULT_GPU
            from memscope.integrations._test_memory import new_recorder

            config = self._item.config
            way: Way = config.getoption("memscope_device") or config.getini("memscope_device") or "auto"
            gpu = config.getoption("memscope_gpu") or config.getini("memscope_gpu") or DEFAULT_GPU
            recorder = new_recorder(way, gpu, self._path())
            recorder.start()
            self._recorder = recorder

    def _path(self) -> Path | None:
        folder = self._item.config.getoption("memscope_bin_path")
        if folder is None:
            return None
        Path(folder).mkdir(parents=True, exist_ok=True)
        return Path(folder) / f"{_NOT_IN_NAMES.sub('-', self._item.nodeid).strip('-')}.memscope"

    def finish(self) -> Measured | None:
        """End the recording, and hold the test to what is asked for; None where no rank of it records here."""
        from memscope.integrations._test_memory import collect_garbage, measure

        collect_garbage()
        recorder = self._running()
        trace = recorder.stop()
        if trace is None:
            return None
        return measure(trace, self._limits(), self._item.nodeid)

    def abandon(self) -> None:
        """End the recording of a test that failed before its limits could be judged."""
        if self._recorder is not None:
            self._recorder.stop()

    def _limits(self) -> Limits:
        from memscope.compare.baseline import parse_tolerance
        from memscope.integrations._test_memory import Limits
        from memscope.units import parse_bytes

        config = self._item.config
        sizes: dict[str, Any] = {
            field: parse_bytes(_argument(self._item, marker))
            for marker, field in (("limit_gpu_memory", "peak_bytes"), ("limit_gpu_leaks", "leak_bytes"))
            if self._item.get_closest_marker(marker) is not None
        }
        sizes.update(self._asked)
        marker = self._item.get_closest_marker("gpu_memory_baseline")
        if marker is None:
            return Limits(**sizes)
        name = _NOT_IN_NAMES.sub("-", _argument(self._item, "gpu_memory_baseline"))
        return Limits(
            **sizes,
            baseline=config.rootpath / str(config.getini("memscope_baselines")) / f"{name}.json",
            tolerance=parse_tolerance(marker.kwargs.get("tolerance", "1%")),
            writes_baseline=bool(config.getoption("memscope_update_baselines")),
        )


def _argument(item: pytest.Item, name: str) -> str:
    marker = item.get_closest_marker(name)
    if marker is None or len(marker.args) != 1 or not isinstance(marker.args[0], str):
        pytest.fail(f"@pytest.mark.{name} needs one text: {MARKERS[name]}", pytrace=False)
    text: str = marker.args[0]
    return text


def _memory_of(item: pytest.Item) -> TestMemory:
    if _MEMORY not in item.stash:
        item.stash[_MEMORY] = TestMemory(item)
    return item.stash[_MEMORY]


@pytest.fixture
def gpu_memory(request: pytest.FixtureRequest) -> Iterator[TestMemory]:
    """The memory of this test, recorded from here on: fixtures that ask for it are recorded, too."""
    memory = _memory_of(request.node)
    memory.start()
    yield memory
    memory.abandon()


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, Any, Any]:
    """Record a test that is to be measured, and fail it where it needs more than it may."""
    is_marked = any(pyfuncitem.get_closest_marker(name) is not None for name in MARKERS)
    if not (is_marked or _MEMORY in pyfuncitem.stash or pyfuncitem.config.getoption("memscope")):
        return (yield)
    from memscope.errors import MemscopeError

    memory = _memory_of(pyfuncitem)
    try:
        memory.start()
        try:
            result = yield
        except BaseException:
            memory.abandon()
            raise
        measured = memory.finish()
    except MemscopeError as error:
        pytest.fail(f"memscope: {error}", pytrace=False)
    if measured is not None:
        values = (measured.peak_bytes, measured.n_allocations, measured.is_predicted)
        pyfuncitem.user_properties += list(zip(_PROPERTIES, values, strict=True))
        pyfuncitem.user_properties += [(_NOTE, note) for note in measured.notes]
        if measured.failures:
            pytest.fail("\n".join(measured.failures), pytrace=False)
    return result


class _Table:
    """The table at the end: the tests that need most, the largest first."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._rows: list[tuple[str, int, int, bool]] = []
        self._notes: list[tuple[str, str]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note what a test needed, in whichever process it ran."""
        if report.when == "call":
            said: dict[str, Any] = dict(report.user_properties)
            if all(name in said for name in _PROPERTIES):
                peak_bytes, n_allocations, is_predicted = (said[name] for name in _PROPERTIES)
                self._rows.append((report.nodeid, peak_bytes, n_allocations, is_predicted))
            self._notes += [(report.nodeid, str(value)) for name, value in report.user_properties if name == _NOTE]

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Print the table, and what was written."""
        if not self._rows or self._config.getoption("hide_memscope_summary"):
            return
        from memscope.units import format_bytes, format_count

        n_shown = self._config.getoption("memscope_most_allocations")
        shown = sorted(self._rows, key=lambda row: -row[1])[:n_shown]
        terminalreporter.section("GPU memory of tests (memscope)")
        terminalreporter.write_line(f"{'peak':>12}  {'allocations':>11}  test")
        for name, peak_bytes, n_allocations, is_predicted in shown:
            kind = " (predicted)" if is_predicted else ""
            size, count = format_bytes(peak_bytes), format_count(n_allocations)
            terminalreporter.write_line(f"{size:>12}  {count:>11}  {name}{kind}")
        if len(self._rows) > len(shown):
            terminalreporter.write_line(f"{'':12}  {'':11}  and {len(self._rows) - len(shown)} that need less")
        for name, note in self._notes:
            terminalreporter.write_line(f"{name}: {note}")
