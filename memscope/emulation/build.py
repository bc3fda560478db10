"""Compiling the stand-ins, once for each PyTorch, with the system's C compiler."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

from memscope.emulation._stubs import DRIVER, RUNTIME, StandIn, file_name_of, find_stand_ins
from memscope.emulation.launch import LINKED, PRELOADED
from memscope.emulation.torch_build import TorchBuild
from memscope.errors import CaptureError

_HERE = Path(__file__).parent
_SOURCES = _HERE / "libraries"
_GENERATORS = ("build.py", "_stubs.py")
_RUNTIME_SOURCES = ("fakecudart.c", "fakecuda_memory.c")
_NVML_SOURCE, _NVML = "fakenvml.c", "libnvidia-ml.so.1"
_COMPILERS = ("cc", "gcc", "clang")
_FLAGS = ("-std=gnu11", "-O1", "-fPIC", "-shared", "-w")
_PRELOAD_SEPARATORS = " :;"


def build_libraries(build: TorchBuild, say: Callable[[str], None]) -> Path:
    """Build the stand-ins for a PyTorch, or find them built.

    Two processes may do so at once: each builds in a folder of its own, and the first to finish gives its folder the
    final name.

    Parameters
    ----------
    build
        The PyTorch to stand in for.
    say
        Is told, in a sentence, when something must be built and when that is done.

    Returns
    -------
    Path
        The folder that holds them.

    Raises
    ------
    CaptureError
        If there is no compiler, it fails, or the cache folder cannot be used.
    """
    cache = _cache_folder()
    if any(separator in str(cache) for separator in _PRELOAD_SEPARATORS):
        raise CaptureError(
            f"{cache} has a space, a colon or a semicolon in its name, and libraries in it cannot be preloaded: set "
            "XDG_CACHE_HOME to another folder"
        )
    folder = cache / f"{build.version}-{_fingerprint(build)}"
    if (folder / PRELOADED).is_file():
        return folder
    compiler = _compiler()
    say(f"building the emulated device for torch {build.version}, once (some seconds)…")
    began = time.monotonic()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".building-", dir=cache))
    except OSError as error:
        reason = error.strerror or str(error)
        raise CaptureError(f"{cache} cannot be written ({reason}): set XDG_CACHE_HOME to another folder") from error
    try:
        _build(build, compiler, work, folder)
        _give_final_name(work, folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    say(f"built the emulated device in {time.monotonic() - began:.1f} s, in {folder}")
    return folder


def _cache_folder() -> Path:
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "memscope" / "emulation"


def _fingerprint(build: TorchBuild) -> str:
    """A hash of all that the result depends on: our sources, and PyTorch's libraries by name and size."""
    digest = hashlib.sha256(f"{build.cuda_number} {build.cudnn_version}".encode())
    for source in sorted([*_SOURCES.iterdir(), *(_HERE / name for name in _GENERATORS)]):
        digest.update(source.name.encode() + source.read_bytes())
    for library in sorted(build.libraries.glob("*.so*")):
        digest.update(f"{library.name} {library.stat().st_size}".encode())
    return digest.hexdigest()[:16]


def _compiler() -> tuple[str, ...]:
    """The C compiler to call: ``CC``, or the first of the usual names."""
    named = shlex.split(os.environ.get("CC", ""))
    found = next((name for name in ([named[0]] if named else _COMPILERS) if shutil.which(name)), None)
    if found is None:
        which = f"CC names {named[0]}, which is not there" if named else "there is no cc, gcc or clang"
        raise CaptureError(f"the emulated device is built with a C compiler, and {which}: install gcc, or set CC")
    return tuple(named) if named else (found,)


def _build(build: TorchBuild, compiler: Sequence[str], work: Path, final: Path) -> None:
    """Compile everything into ``work``; the list of libraries names them where they will be, in ``final``."""
    stand_ins = find_stand_ins(build)
    runtime = stand_ins.pop(RUNTIME)
    flags = (*_FLAGS, f"-DFAKE_CUDART_VERSION={build.cuda_number}")
    has_meaning = _functions_with_meaning()
    runtime_path = work / runtime.file_name
    sources = [str(_SOURCES / name) for name in _RUNTIME_SOURCES]
    _link(runtime, has_meaning, build, [*compiler, *flags], [*sources, "-pthread"], runtime_path, is_runtime=True)
    for name, stand_in in stand_ins.items():
        # The driver's functions are the runtime library's; dlsym finds them through the dependency.
        through = ["-Wl,--no-as-needed", str(runtime_path)] if name == DRIVER else []
        hidden = has_meaning if name == DRIVER else frozenset[str]()
        _link(stand_in, hidden, build, [*compiler, *flags], through, work / stand_in.file_name)
    nvml = [str(_SOURCES / _NVML_SOURCE), "-Wl,--no-as-needed", str(runtime_path), f"-Wl,-soname,{_NVML}"]
    _run([*compiler, *flags, *nvml, "-o", str(work / file_name_of(_NVML))])
    names = [runtime.file_name, *(stand_in.file_name for stand_in in stand_ins.values()), file_name_of(_NVML)]
    (work / LINKED).mkdir()
    (work / LINKED / stand_ins[DRIVER].soname).symlink_to(Path("..") / stand_ins[DRIVER].file_name)
    (work / PRELOADED).write_text("".join(f"{final / name}\n" for name in names), encoding="utf-8")


def _functions_with_meaning() -> frozenset[str]:
    """Names of the functions that the runtime's C files define."""
    text = "".join((_SOURCES / name).read_text(encoding="utf-8") for name in _RUNTIME_SOURCES)
    words = text.replace("(", " ( ").replace("*", " ").split()
    return frozenset(name for name, bracket in pairwise(words) if bracket == "(")


def _link(
    stand_in: StandIn,
    has_meaning: frozenset[str],
    build: TorchBuild,
    compiler: Sequence[str],
    extra: Sequence[str],
    path: Path,
    *,
    is_runtime: bool = False,
) -> None:
    source, symbol_map = path.with_suffix(".c"), path.with_suffix(".map")
    source.write_text(stand_in.source(has_meaning, build), encoding="utf-8")
    symbol_map.write_text(stand_in.symbol_map(is_runtime=is_runtime), encoding="utf-8")
    scripts = [f"-Wl,-soname,{stand_in.soname}", f"-Wl,--version-script,{symbol_map}"]
    _run([*compiler, str(source), *extra, *scripts, "-o", str(path)])


def _run(command: Sequence[str]) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if result.returncode:
        lines = [line for line in result.stderr.splitlines() if "error" in line.lower()] or result.stderr.splitlines()
        first = lines[0].strip() if lines else f"exit code {result.returncode}"
        raise CaptureError(f"{command[0]} could not build the emulated device: {first}")


def _give_final_name(work: Path, final: Path) -> None:
    try:
        work.rename(final)
    except OSError as error:
        if not (final / PRELOADED).is_file():  # otherwise another process was first: what it built is the same
            raise CaptureError(f"{final} cannot be made: {error.strerror or error}") from error
