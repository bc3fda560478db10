"""C sources of the stand-ins that need no meaning: every function that PyTorch's libraries want from NVIDIA's others.

A stub returns 0, which is success in each of NVIDIA's status enumerations; one that creates something stores a dummy
handle through its first argument; those whose answers PyTorch looks at are written out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from elftools.common.exceptions import ELFError
from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection
from elftools.elf.sections import Section, SymbolTableSection

from memscope.emulation.torch_build import TorchBuild
from memscope.errors import InputFileError

RUNTIME, DRIVER = "libcudart", "libcuda"
_LIBRARIES = (
    "cudart|cublas|cublasLt|cusolver|cusolverMg|cusparse|cusparseLt|cufft|cufile|curand|cudnn|nccl|nvshmem_host|nvrtc|"
    "cupti|cuda|nvToolsExt|nvJitLink|nvtx3interop"
)
_IS_NVIDIA = re.compile(rf"^lib({_LIBRARIES})\.so")
_LIBRARY_OF_PREFIX = (
    ("cublasLt", "libcublasLt"),
    ("cublas", "libcublas"),
    ("cusolverMg", "libcusolverMg"),
    ("cusolver", "libcusolver"),
    ("cusparseLt", "libcusparseLt"),
    ("cusparse", "libcusparse"),
    ("cufft", "libcufft"),
    ("cuFile", "libcufile"),
    ("curand", "libcurand"),
    ("cudnn", "libcudnn"),
    ("nccl", "libnccl"),
    ("pnccl", "libnccl"),
    ("nvshmem", "libnvshmem_host"),
    ("nvrtc", "libnvrtc"),
    ("cupti", "libcupti"),
    ("nvtx", "libnvToolsExt"),
    ("__cuda", RUNTIME),
    ("cuda", RUNTIME),
    ("cu", DRIVER),
)
_IS_UNVERSIONED = re.compile(r"^(cu[a-z]*[A-Z]|__cuda|nccl[A-Z]|pnccl|nvshmem|nvrtc|nvtx|cupti)")
_DRIVER_NAME = re.compile(rb"\0(cu[A-Z][A-Za-z0-9]+(?:_v\d)?)(?=\0)")
_SONAMES = {DRIVER: "libcuda.so.1", "libnvToolsExt": "libnvToolsExt.so.1"}
_CREATES = re.compile(r"(Create|createDescr|Init$|^ncclCommInit)")
_CREATES_IN_PLACE = ("cusparseLt", "cublasLtMatrixLayoutInit", "cudnnBackendCreate", "nccl", "cupti", "nvrtcC")
_RUNTIME_EXPORTS = "cuda*; __cuda*; fakecuda_*; cu[A-Z]*;"
_SYMBOL = np.dtype(
    [
        ("st_name", "<u4"),
        ("st_info", "u1"),
        ("st_other", "u1"),
        ("st_shndx", "<u2"),
        ("st_value", "<u8"),
        ("st_size", "<u8"),
    ]
)
"""``Elf64_Sym``."""
_SHN_UNDEF = 0
_VERSION_MASK = 0x7FFF

_HEAD = """#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static char dummy[4096];
static void say(const char *name) {
  static int is_on = -1;
  if (is_on < 0) { const char *text = getenv("FAKE_CUDA_TRACE_STUBS"); is_on = text && *text == '1'; }
  if (is_on) fprintf(stderr, "emulated device: %s does nothing\\n", name);
}
"""
_TEXT = 'const char *{name}(int error) {{ return "emulated"; }}'
_WRITTEN_OUT = {
    "cudnnGetVersion": "size_t {name}(void) {{ return {cudnn}; }}",
    "cudnnGetCudartVersion": "size_t {name}(void) {{ return {cuda}; }}",
    "cudnnGetErrorString": _TEXT,
    "cudnnGetLastErrorString": "void {name}(char *text, size_t n) {{ if (n) text[0] = 0; }}",
    "cublasLtGetVersion": "size_t {name}(void) {{ return 130100; }}",
    "cublasGetVersion_v2": "int {name}(void *handle, int *version) {{ *version = 130100; return 0; }}",
    # PyTorch keeps a workspace for each handle, and a thread has its own: no two handles may be equal.
    "cublasCreate_v2": 'int {name}(void **handle) {{ say("{name}"); *handle = calloc(1, 64); return !*handle; }}',
    "cublasDestroy_v2": 'int {name}(void *handle) {{ say("{name}"); free(handle); return 0; }}',
    "cublasGetMathMode": "int {name}(void *handle, int *mode) {{ *mode = 0; return 0; }}",
    "cublasGetPointerMode_v2": "int {name}(void *handle, int *mode) {{ *mode = 0; return 0; }}",
    # One algorithm is found, and it needs no workspace of its own: PyTorch has allocated the one it offers already.
    "cublasLtMatmulAlgoGetHeuristic": (
        "int {name}(void *a, void *b, void *c, void *d, void *e, void *f, void *g, int n, void *found, int *count)"
        " {{ memset(found, 0, 8); *count = 1; return 0; }}"
    ),
    "cufftCreate": "int {name}(int *handle) {{ *handle = 1; return 0; }}",
    "cufftXtMakePlanMany": (
        "int {name}(int plan, int rank, void *n, void *a, long long b, long long c, int d, void *e, long long f,"
        " long long g, int h, long long batch, size_t *work_size, int kind) {{ *work_size = 0; return 0; }}"
    ),
    "cusparseGetErrorString": _TEXT,
    "nvrtcGetErrorString": _TEXT,
    "nvrtcVersion": (
        "int {name}(int *major, int *minor) {{ *major = {cuda} / 1000; *minor = {cuda} % 1000 / 10; return 0; }}"
    ),
    "ncclGetErrorString": _TEXT,
    "ncclGetLastError": 'const char *{name}(void *communicator) {{ return ""; }}',
    "ncclGetVersion": "int {name}(int *version) {{ *version = 22809; return 0; }}",
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """An undefined symbol: its name, and the version and the library that it is wanted from, empty where unsaid."""

    name: str
    version: str
    library: str


@dataclass(frozen=True, slots=True)
class Wants:
    """What one library wants: the libraries by their sonames, and the symbols."""

    libraries: tuple[str, ...]
    symbols: tuple[Wanted, ...]


@dataclass(slots=True)
class StandIn:
    """One library to build: its soname, and the version of each symbol, empty where it has none."""

    soname: str
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def file_name(self) -> str:
        """The name of its file, unlike the soname by which it is found.

        Where PyTorch sees ``libcudart.so`` among the mapped files, it loads NVIDIA's packages, if installed, by path.
        """
        return file_name_of(self.soname)

    def symbol_map(self, *, is_runtime: bool) -> str:
        """The linker's version script; the runtime exports its own functions beside the wanted ones."""
        by_version: dict[str, list[str]] = {}
        for name, version in sorted(self.versions.items()):
            if version:
                by_version.setdefault(version, []).append(name)
        if not by_version:
            return "{ global: *; };\n"
        extra = f" {_RUNTIME_EXPORTS} local: *;" if is_runtime else ""
        return "".join(
            f"{version} {{ global: {' '.join(f'{name};' for name in names)}{extra} }};\n"
            for version, names in by_version.items()
        )

    def source(self, has_meaning: frozenset[str], build: TorchBuild) -> str:
        """C source with a stub for each symbol but those that have a meaning elsewhere."""
        names = sorted(self.versions.keys() - has_meaning)
        return _HEAD + "".join(f"{_stub(name, build)}\n" for name in names)


def file_name_of(soname: str) -> str:
    """``cudart.emulated.so`` for ``libcudart.so.13``."""
    return f"{_stem(soname).removeprefix('lib')}.emulated.so"


def find_stand_ins(build: TorchBuild) -> dict[str, StandIn]:
    """Which libraries a PyTorch wants of NVIDIA's, and what from each: by name without ``.so`` and version.

    Raises
    ------
    InputFileError
        If one of PyTorch's libraries cannot be read.
    """
    sonames = dict(_SONAMES)
    wanted: dict[str, dict[str, str]] = {}
    for path in sorted(build.libraries.glob("*.so*")):
        wants = read_wants(path)
        libraries = [*wants.libraries, *(symbol.library for symbol in wants.symbols)]
        sonames |= {_stem(name): name for name in libraries if _IS_NVIDIA.match(name)}
        for symbol in wants.symbols:
            library = _library_of(symbol.name, symbol.version, symbol.library)
            if library is not None:
                wanted.setdefault(library, {})[symbol.name] = symbol.version
    for name in _looked_up_by_name(build.libraries / "libc10_cuda.so"):
        wanted.setdefault(DRIVER, {}).setdefault(name, "")
    needed = wanted.keys() | (sonames.keys() - _SONAMES.keys()) | {RUNTIME, DRIVER}
    return {name: StandIn(sonames[name], wanted.get(name, {})) for name in sorted(needed) if name in sonames}


def read_wants(path: Path) -> Wants:
    """Read the needed libraries and the undefined symbols of a shared library.

    Raises
    ------
    InputFileError
        If the file is not a 64-bit little-endian ELF library.
    """
    try:
        with path.open("rb") as file:
            image = ELFFile(file)
            if image.elfclass != 64 or not image.little_endian:
                raise InputFileError(path, "is not a 64-bit little-endian ELF library")
            dynamic = image.get_section_by_name(".dynamic")
            tags = dynamic.iter_tags("DT_NEEDED") if isinstance(dynamic, DynamicSection) else ()
            needed = tuple(tag.needed for tag in tags)  # type: ignore[attr-defined]  # set per tag
            return Wants(needed, tuple(_undefined_symbols(image)))
    except (ELFError, ValueError, OSError, MemoryError) as error:
        raise InputFileError(path, f"cannot be read as an ELF library: {error}") from error


def _undefined_symbols(image: ELFFile) -> Iterator[Wanted]:
    symbols, numbers = image.get_section_by_name(".dynsym"), image.get_section_by_name(".gnu.version")
    if not isinstance(symbols, SymbolTableSection):
        return
    versions = _wanted_versions(image.get_section_by_name(".gnu.version_r"))
    # The two tables are read whole: parsing each of the 120,000 symbols of PyTorch's libraries would take 20 s.
    table = np.frombuffer(symbols.data(), _SYMBOL)
    version_of = np.zeros(len(table), "<u2") if numbers is None else np.frombuffer(numbers.data(), "<u2")
    for i in np.flatnonzero((table["st_shndx"] == _SHN_UNDEF) & (table["st_name"] != 0)).tolist():
        name = symbols.stringtable.get_string(int(table["st_name"][i]))
        yield Wanted(name, *versions.get(int(version_of[i]) & _VERSION_MASK, ("", "")))


def _wanted_versions(section: Section | None) -> dict[int, tuple[str, str]]:
    """(version, library) of each version number that undefined symbols carry."""
    if not isinstance(section, GNUVerNeedSection):
        return {}
    return {
        entry["vna_other"] & _VERSION_MASK: (entry.name, library.name or "")
        for library, entries in section.iter_versions()
        for entry in entries
    }


def _library_of(name: str, version: str, library: str) -> str | None:
    if library:
        return _stem(library) if _IS_NVIDIA.match(library) else None
    if version or not _IS_UNVERSIONED.match(name):
        return None
    return next((found for prefix, found in _LIBRARY_OF_PREFIX if name.startswith(prefix)), None)


def _stem(soname: str) -> str:
    return soname.split(".so")[0]


def _looked_up_by_name(path: Path) -> Iterable[str]:
    """Names of driver functions in a library's data: older PyTorch looks them up in ``libcuda.so.1``."""
    return {name.decode() for name in _DRIVER_NAME.findall(path.read_bytes())}


def _stub(name: str, build: TorchBuild) -> str:
    if name in _WRITTEN_OUT:
        return _WRITTEN_OUT[name].format(name=name, cudnn=build.cudnn_version, cuda=build.cuda_number)
    if _CREATES.search(name) and not name.startswith(_CREATES_IN_PLACE):
        return f'int {name}(void **handle) {{ say("{name}"); *handle = dummy; return 0; }}'
    return f'int {name}() {{ say("{name}"); return 0; }}'
