"""The pytest plugin, as pytest runs it, on tests that are written here."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from memscope.trace.container import read_container

pytest.importorskip("torch")
ROOT = Path(__file__).resolve().parents[2]
_PLUGINS = ("-p", "no:memscope", "-p", "memscope.integrations.pytest_plugin", "-p", "no:cacheprovider")


class Ended(NamedTuple):
    """How a run of pytest ended."""

    returncode: int
    stdout: str
    folder: Path


Ran = Callable[..., Ended]


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ran:
    """Run a file of tests in this process with nothing but this plugin, dry."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")

    def run(text: str, *options: str) -> Ended:
        (tmp_path / "test_it.py").write_text(text)
        (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers --import-mode=importlib\n")
        sys.modules.pop("test_it", None)  # the run before had one, too
        code = pytest.main([*_PLUGINS, "--memscope-device", "dry-run", *options])
        return Ended(int(code), capsys.readouterr().out, tmp_path)

    return run


LIMITED = """
import pytest
import torch

MiB = 1 << 20

def hold(n_mib):
    return torch.empty(n_mib * MiB, dtype=torch.uint8, device="cuda")

@pytest.mark.limit_gpu_memory("8 MiB")
def test_within():
    hold(4)
    hold(4)

@pytest.mark.limit_gpu_memory("8 MiB")
def test_beyond():
    first = hold(6)
    second = hold(4)

@pytest.mark.limit_gpu_memory("8 MiB")
def test_that_fails_by_itself():
    hold(100)
    raise ValueError("its own")

def test_unmarked():
    pass
"""


def test_a_test_that_needs_more_than_its_limit_fails_with_the_lines(ran: Ran) -> None:
    ended = ran(LIMITED)
    assert ended.returncode == 1, ended.stdout
    assert "2 failed, 2 passed" in ended.stdout
    assert "limit_gpu_memory: the test needs 10.0 MiB of GPU memory, 2.0 MiB over its limit of 8.0 MiB" in ended.stdout
    assert "test_it.py:8 hold" in ended.stdout
    assert "ValueError: its own" in ended.stdout
    # The table: those that were measured to the end.
    table = ended.stdout.partition("GPU memory of tests (memscope)")[2]
    assert table.index("test_beyond") < table.index("test_within")
    assert "4.0 MiB" in table
    assert "(predicted)" in table
    assert "test_unmarked" not in table


LEAKY = """
import pytest
import torch

KEPT = []

@pytest.mark.limit_gpu_leaks("1 MB")
def test_leaks():
    KEPT.append(torch.empty(2 << 20, dtype=torch.uint8, device="cuda"))

@pytest.mark.limit_gpu_leaks("4 MB")
def test_leaks_less_than_it_may():
    KEPT.append(torch.empty(2 << 20, dtype=torch.uint8, device="cuda"))

@pytest.mark.limit_gpu_leaks("1 MB")
def test_lets_go():
    class Node:
        pass
    node = Node()
    node.itself, node.tensor = node, torch.empty(2 << 20, dtype=torch.uint8, device="cuda")
"""


def test_what_outlives_a_test_is_a_leak_with_its_line(ran: Ran) -> None:
    ended = ran(LEAKY)
    assert "1 failed, 2 passed" in ended.stdout, ended.stdout
    assert "limit_gpu_leaks: 2.0 MiB outlive the test at lines that may keep 976.6 KiB each" in ended.stdout
    assert "test_it.py:9 test_leaks" in ended.stdout


BASELINED = """
import pytest
import torch

@pytest.mark.gpu_memory_baseline("step", tolerance="1%")
def test_step():
    torch.empty(SIZE << 20, dtype=torch.uint8, device="cuda")
"""


def test_a_baseline_is_written_kept_and_passed(ran: Ran) -> None:
    missing = ran(BASELINED.replace("SIZE", "8"))
    assert missing.returncode == 1
    assert "write it with --memscope-update-baselines" in missing.stdout
    written = ran(BASELINED.replace("SIZE", "8"), "--memscope-update-baselines")
    assert written.returncode == 0, written.stdout
    assert "wrote step.json: 8.0 MiB" in written.stdout
    content = json.loads((written.folder / "gpu-memory-baselines" / "step.json").read_text())
    assert content["peak_allocated"]["highest_bytes"] == 8 << 20
    assert ran(BASELINED.replace("SIZE", "8")).returncode == 0
    grown = ran(BASELINED.replace("SIZE", "10"))
    assert grown.returncode == 1
    assert "the test needs 10.0 MiB of GPU memory, 8.0 MiB in step.json: 1.9 MiB over what it allows" in grown.stdout
    assert "+2.0 MiB" in grown.stdout


FIXTURE = """
import pytest
import torch

@pytest.fixture
def model(gpu_memory):
    return torch.nn.Linear(1024, 1024).cuda()

def test_model(model, gpu_memory):
    with gpu_memory.phase("forward"):
        model(torch.zeros(4, 1024, device="cuda"))
    gpu_memory.step()
    gpu_memory.limit(peak="1 KiB")

@pytest.fixture
def broken(gpu_memory):
    raise RuntimeError("in a fixture")

def test_broken(broken):
    pass

def test_after(gpu_memory):
    torch.zeros(10, device="cuda")
"""


def test_the_fixture_records_what_is_made_after_it_and_takes_limits(ran: Ran, tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    ended = ran(FIXTURE, "--memscope-bin-path", str(folder))
    # Where the plugin is installed as well, pytest warns that it was there already.
    assert re.search(r"1 failed, 1 passed,( 1 warning,)? 1 error", ended.stdout), ended.stdout
    assert "weights: weight" in ended.stdout
    trace = read_container(folder / "test_it.py-test_model.memscope")
    labels = [trace.strings[i] for i in trace.marks.label_id]
    assert "forward" in labels


def test_all_tests_are_measured_with_the_option_and_the_table_can_be_hidden(ran: Ran) -> None:
    text = "import torch\n\ndef test_a():\n    torch.ones(1 << 20, device='cuda')\n\ndef test_b():\n    pass\n"
    ended = ran(text, "--memscope", "--memscope-gpu", "24GiB")
    assert ended.returncode == 0, ended.stdout
    table = ended.stdout.partition("GPU memory of tests (memscope)")[2]
    assert "4.0 MiB" in table
    assert "0 B" in table
    one = ran(text, "--memscope", "--memscope-most-allocations", "1")
    assert "and 1 that need less" in one.stdout
    hidden = ran(text, "--memscope", "--hide-memscope-summary")
    assert "GPU memory of tests" not in hidden.stdout


def test_tests_that_run_side_by_side_have_one_table(ran: Ran, tmp_path: Path) -> None:
    pytest.importorskip("xdist")
    text = "import torch\n\ndef test_a():\n    torch.ones(1 << 20, device='cuda')\n\ndef test_b():\n    pass\n"
    ended = ran(text, "--memscope", "-p", "xdist", "-n", "1", "--junit-xml", str(tmp_path / "junit.xml"))
    assert ended.returncode == 0, ended.stdout
    assert "4.0 MiB" in ended.stdout.partition("GPU memory of tests (memscope)")[2]
    assert '<property name="gpu_memory_peak_bytes" value="4194304"' in (tmp_path / "junit.xml").read_text()


@pytest.mark.parametrize(
    ("marker", "words"),
    [
        ("limit_gpu_memory('lots')", "is not a size"),
        ("limit_gpu_memory()", "needs one text"),
        ("limit_gpu_leaks(3)", "needs one text"),
        ("gpu_memory_baseline('a', tolerance='x')", "is no tolerance"),
    ],
)
def test_a_marker_that_says_nothing_fails_its_test_in_a_line(ran: Ran, marker: str, words: str) -> None:
    ended = ran(f"import pytest\n\n@pytest.mark.{marker}\ndef test_a():\n    pass\n")
    assert ended.returncode == 1
    assert words in ended.stdout
    assert "Traceback" not in ended.stdout


def test_where_nothing_is_measured_neither_torch_nor_the_analysis_is_imported(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import sys\n\ndef test_a():\n"
        "    loaded = {name for name in sys.modules if name.startswith('memscope')}\n"
        "    assert loaded <= {'memscope', 'memscope.version', 'memscope.integrations', "
        "'memscope.integrations.pytest_plugin'}, loaded\n"
        "    assert not {'torch', 'numpy', 'pyarrow'} & set(sys.modules)\n"
    )
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:memscope", "-p", "memscope.integrations.pytest_plugin"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": paths, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "GPU memory of tests" not in ended.stdout


def test_the_plugin_is_found_by_pytest() -> None:
    if sys.version_info < (3, 11):
        pytest.skip("tomllib came with Python 3.11")
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"memscope": "memscope.integrations.pytest_plugin"}
