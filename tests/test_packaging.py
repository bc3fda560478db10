"""What is handed out: the archive of sources, the wheel, and what is said where there is no compiler."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Outcome

ROOT = Path(__file__).resolve().parents[1]
TRACES = ROOT / "traces"
EXTRAS = ("dash", "dash_ag_grid", "dash_mantine_components", "pandas", "plotly", "torch", "transformers")
"""What an installation without any extra has not."""


def _build(kind: str, source: Path, folder: Path) -> Path:
    """Build an sdist or a wheel with the packages of this environment, as a front end would."""
    pytest.importorskip("scikit_build_core")
    code = f"from scikit_build_core.build import build_{kind}; print(build_{kind}({str(folder)!r}))"
    ended = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return folder / ended.stdout.splitlines()[-1]


def _names(sdist: Path) -> set[str]:
    with tarfile.open(sdist) as archive:
        return {name.partition("/")[2] for name in archive.getnames()}


def test_the_sdist_holds_the_sources_and_nothing_that_was_made_from_them(tmp_path: Path) -> None:
    names = _names(_build("sdist", ROOT, tmp_path))
    for folder, pattern in (("core", "*/*"), ("memscope", "**/*.py"), ("dashboard", "**/*.py"), ("examples", "*.py")):
        assert {path.relative_to(ROOT).as_posix() for path in (ROOT / folder).glob(pattern)} <= names
    assert {"CMakeLists.txt", "LICENSE", "README.md", "pyproject.toml", "memscope/py.typed"} <= names
    made = {".git", ".venv", ".venv-emulated", ".mypy_cache", "build", "dist", "out", "__pycache__"}
    assert not [name for name in names if made & set(name.split("/")) or name.endswith((".so", ".pyd", ".pyc"))]


def test_without_a_compiler_one_line_says_what_to_install(tmp_path: Path) -> None:
    # Those of this environment, which need not be in PATH; the machine may have none.
    cmake, ninja = (shutil.which(name, path=Path(sys.executable).parent) for name in ("cmake", "ninja"))
    assert cmake is not None
    assert ninja is not None
    configure = [cmake, "-S", str(ROOT), "-B", str(tmp_path), "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"]
    ended = subprocess.run(
        configure,
        env={"CXX": "no-such-compiler", "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode != 0
    (line,) = (line for line in ended.stderr.splitlines() if "C++20 compiler" in line)
    assert "there is none here: install one (Debian: apt install g++;" in line
    # What was not found is looked for again the next time.
    assert "CMAKE_CXX_COMPILER" not in (tmp_path / "CMakeCache.txt").read_text()


@pytest.mark.slow
def test_a_wheel_built_from_the_sdist_answers_without_torch_and_without_a_compiler(tmp_path: Path) -> None:
    with tarfile.open(_build("sdist", ROOT, tmp_path)) as archive:
        archive.extractall(tmp_path / "source", filter="data")
    (source,) = (tmp_path / "source").iterdir()
    wheel = _build("wheel", source, tmp_path)
    version = sys.version_info[:2]
    assert (f"cp{version[0]}{version[1]}-cp" if version < (3, 12) else "cp312-abi3-") in wheel.name
    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    program = (
        f"import sys; sys.path.insert(0, {str(installed)!r}); sys.modules.update(dict.fromkeys({EXTRAS}))\n"
        "import memscope; assert memscope.__file__.startswith(sys.path[0])\n"
        "from memscope.cli.main import main; main()"
    )
    environment = {**os.environ, "PATH": ""}
    environment.pop("PYTHONPATH", None)
    for verb, said in (("report", "reserved"), ("verify", "exact")):
        command = [sys.executable, "-c", program, verb, str(TRACES / "tiny-llama-train.memscope")]
        ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        assert said in ended.stdout


def _without_extras(*arguments: object) -> Outcome:
    """Run the program where no extra is installed: None in ``sys.modules`` is a package that cannot be found."""
    program = (
        "import sys, importlib.util as util; find_spec = util.find_spec\n"
        f"extras = {EXTRAS}; sys.modules.update(dict.fromkeys(extras))\n"
        "util.find_spec = lambda name, *args: None if name in extras else find_spec(name, *args)\n"
        "from memscope.cli.main import main; main()"
    )
    command = [sys.executable, "-c", program, *map(str, arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    return Outcome(ended.returncode, ended.stdout, ended.stderr)


@pytest.mark.parametrize("verb", ["report", "peak", "frag", "oom", "verify", "tune", "replay", "kv"])
def test_text_answers_need_no_extra(verb: str, memscope: Callable[..., Outcome]) -> None:
    trace = TRACES / ("tiny-gpt2-generate.memscope" if verb == "kv" else "tiny-out-of-memory.memscope")
    bare = _without_extras(verb, trace)
    assert bare.err == ""
    assert bare == memscope(verb, trace)


def test_ranks_side_by_side_need_no_extra() -> None:
    traces = [TRACES / "tiny-llama-train.memscope", TRACES / "tiny-gpt2-generate.memscope"]
    assert _without_extras("report", *traces).code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["dash", "TRACE"], "the dashboard needs dash, "),
        (["run", "--dash", "--dry-run", "script.py"], "the dashboard needs dash, "),
        (["demo", "-o", "OUT"], "the dashboard needs dash, "),
        (["report", "TRACE", "-o", "OUT"], "an HTML page needs plotly, "),
        (["report", "TRACE", "TRACE", "-o", "OUT"], "an HTML page needs plotly, "),
        (["diff", "TRACE", "TRACE", "-o", "OUT"], "an HTML page needs plotly, "),
        (["serving", "--config", "llama-3-8b", "-o", "OUT"], "an HTML page needs plotly, "),
    ],
    ids=["dash", "run", "demo", "report", "ranks", "diff", "serving"],
)
def test_what_needs_an_extra_says_so_in_one_line(arguments: list[str], said: str, tmp_path: Path) -> None:
    places = {"TRACE": TRACES / "tiny-llama-train.memscope", "OUT": tmp_path / "out"}
    code, out, err = _without_extras(*(places.get(argument, argument) for argument in arguments))
    assert (code, out) == (1, "")
    assert err.startswith(f"memscope: {said}")
    assert err.endswith("which is not installed: pip install 'torch-memscope[dash]'\n")
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()
