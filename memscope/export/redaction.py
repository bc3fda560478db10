"""A trace that names nothing of yours: every name of a file, function, module or label is a pseudonym, numbers stay.

A pseudonym is the same wherever a name appears, in every trace that is redacted with the same key, so that redacted
traces can still be compared. Without a key of your own, who guesses a name can check whether it is in the trace.

Kept are names that are public (:mod:`._public_names`): without those of PyTorch's own files no category could be told.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from hashlib import blake2b
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from memscope.analysis import Analysis
from memscope.errors import UsageError
from memscope.export._public_names import (
    CACHE_KINDS,
    WORDS,
    file_hints,
    is_public_label,
    is_settings,
    is_tensor,
    public_file,
    public_function,
)
from memscope.trace.builder import StringTable
from memscope.trace.schema import NONE_ID
from memscope.trace.tables import Int32Array, StackTable
from memscope.trace.trace import Trace

if TYPE_CHECKING:
    import numpy.typing as npt

_N_HEX = 8
_MOST_KEY_BYTES = 64
_TOKEN = re.compile(r"[^\W\d]\w*|[^\x00-\x7f]+")
_PATH = re.compile(r"\S*[/\\]\S*|\S*@\S*")
_LEAST_PRIVATE = 3
"""Characters of a name from which it is looked for within sentences."""
_EXTRAS = (
    *("emulated", "rocm", "gpu", "n_fixed_answers", "emulated_values_read_back", "context_bytes_modelled"),
    *("collectives_modelled", "segment_total_mismatches", "n_segment_total_mismatches"),
    *("cuda_version", "python_version", "transformers_version", "local_rank", "world_size"),
)
_OWN_BUILD = re.compile(r"\+(?!(?:cpu|cu\d+|rocm[\d.]+|git[0-9a-f]+)\Z).*", re.DOTALL)
"""What a version of torch says of who built it, but for the public builds."""


@dataclass(frozen=True, slots=True)
class Redaction:
    """A redacted trace, and what became of its names.

    Attributes
    ----------
    replaced
        So many distinct names have a pseudonym, by kind.
    kept
        The distinct names that were kept, by kind, sorted.
    left_out
        What was left out, a phrase each.
    """

    trace: Trace
    replaced: dict[str, int]
    kept: dict[str, tuple[str, ...]]
    left_out: tuple[str, ...]


def redact(trace: Trace, key: str = "") -> Redaction:
    """Replace every name that is not public. Linear in the trace.

    Raises
    ------
    UsageError
        If the key is longer than 64 bytes of UTF-8.
    """
    names = _Names(trace, key)
    stacks = trace.stacks
    new_names, new_files = names.frames(stacks)
    columns = {
        "label_id": names.mapped(trace.label_id, names.label),
        "marks": replace(trace.marks, label_id=names.mapped(trace.marks.label_id, names.label)),
        "owners": replace(
            trace.owners,
            label_id=names.mapped(trace.owners.label_id, names.owner),
            tensor_id=names.mapped(trace.owners.tensor_id, names.tensor),
        ),
        "cache_layers": replace(trace.cache_layers, kind_id=names.mapped(trace.cache_layers.kind_id, names.kind)),
        "stacks": StackTable(
            offsets=stacks.offsets,
            frame_ids=stacks.frame_ids,
            name_id=new_names,
            filename_id=new_files,
            line=stacks.line,
        ),
    }
    kept_columns = {f.name: getattr(trace, f.name) for f in fields(trace) if f.name not in columns}
    metadata = names.metadata(trace)
    found = Trace(**{**kept_columns, **columns, "metadata": metadata, "strings": names.strings()})
    return Redaction(found, names.replaced(), names.kept(), tuple(names.left_out))


class _Names:
    """What each name becomes, and the texts of the redacted trace."""

    def __init__(self, trace: Trace, key: str) -> None:
        self._key = key.encode("utf-8", "surrogatepass")
        if len(self._key) > _MOST_KEY_BYTES:
            raise UsageError(f"--key is longer than {_MOST_KEY_BYTES} bytes")
        self._old = trace.strings
        self._new = StringTable()
        self._replaced: dict[str, dict[str, str]] = {}
        self._kept: dict[str, set[str]] = {}
        self.left_out: list[str] = []

    def strings(self) -> tuple[str, ...]:
        return self._new.strings()

    def replaced(self) -> dict[str, int]:
        return {kind: len(names) for kind, names in sorted(self._replaced.items())}

    def kept(self) -> dict[str, tuple[str, ...]]:
        return {kind: tuple(sorted(names)) for kind, names in sorted(self._kept.items())}

    def mapped(self, ids: npt.NDArray[Any], become: Callable[[str], str]) -> Int32Array:
        """New ids of some old ones; each distinct text is looked at once."""
        used, position = np.unique(ids, return_inverse=True)
        new = [NONE_ID if i == NONE_ID else self._new.intern(become(self._old[i])) for i in used.tolist()]
        return np.array(new, np.int32)[position.reshape(-1)] if len(new) else np.empty(0, np.int32)

    def frames(self, stacks: StackTable) -> tuple[Int32Array, Int32Array]:
        """New ids of the frames' functions and files. A function that a public file has, too, is no secret."""
        pairs = list(zip(stacks.name_id.tolist(), stacks.filename_id.tolist(), strict=True))
        files = {i: public_file(self._old[i]) for i in {file for _, file in pairs}}
        known = {self._old[name] for name, file in pairs if files[file] is not None and _is_python(self._old[file])}
        functions, places = [], []
        for name, file in pairs:
            functions.append(self._new.intern(self._function(self._old[name], known, _is_python(self._old[file]))))
            places.append(self._new.intern(self._file(self._old[file], files[file])))
        return np.array(functions, np.int32), np.array(places, np.int32)

    def _function(self, name: str, known: set[str], is_python: bool) -> str:
        public = name if name in known else public_function(name, is_python=is_python)
        if public is not None:
            return self._keep("functions", public)
        return self._pseudonym("functions", name, "function_")

    def _file(self, path: str, public: str | None) -> str:
        if public is not None:
            return self._keep("files", public)
        suffix = PurePath(path.replace("\\", "/")).suffix
        hints = file_hints(path) if suffix == ".py" else ""
        prefix = f"file_{hints}_" if hints else "file_"
        return self._pseudonym("files", path, prefix, suffix if suffix in (".py", ".cpp", ".cu", ".so", ".h") else "")

    def label(self, text: str) -> str:
        """A step's, a phase's or a range's name."""
        if is_public_label(text):
            return self._keep("labels", text)
        return self._pseudonym("labels", text, "label_")

    def owner(self, text: str) -> str:
        """An owner's name: its words one by one, so that modules stay the tree that they are.

        A name of which only some words are private counts as replaced.
        """
        new = _TOKEN.sub(lambda match: self._word(match[0]), text)
        if new == text:
            return self._keep("owners", text)
        self._replaced.setdefault("owners", {})[text] = new
        return new

    def _word(self, word: str) -> str:
        return word if word in WORDS or len(word) == 1 else self._pseudonym("words of owners", word, "name_")

    def tensor(self, text: str) -> str:
        """The type and shape of a tensor."""
        return self._keep("tensors", text) if is_tensor(text) else self._pseudonym("tensors", text, "tensor_")

    def kind(self, text: str) -> str:
        """The class of a layer of a cache."""
        if text in CACHE_KINDS:
            return self._keep("cache layers", text)
        return self._pseudonym("cache layers", text, "kind_")

    def _keep(self, kind: str, text: str) -> str:
        self._kept.setdefault(kind, set()).add(text)
        return text

    def _pseudonym(self, kind: str, text: str, prefix: str, suffix: str = "") -> str:
        names = self._replaced.setdefault(kind, {})
        if text not in names:
            digest = blake2b(text.encode("utf-8", "surrogatepass"), key=self._key, digest_size=_N_HEX // 2)
            names[text] = f"{prefix}{digest.hexdigest()}{suffix}"
        return names[text]

    def metadata(self, trace: Trace) -> Any:
        """Who recorded it, without names of files, and notes that say nothing of the program."""
        metadata = trace.metadata
        for name in metadata.device_names.values():
            self._keep("devices", name)
        source = metadata.source_file
        if source is not None:
            source = self._pseudonym("files", source, "file_", PurePath(source).suffix[:8])
        notes = tuple(note for note in map(self._note, metadata.notes) if note is not None)
        if len(notes) < len(metadata.notes):
            self.left_out.append(f"notes that name files or hosts: {len(metadata.notes) - len(notes)}")
        conf = metadata.alloc_conf
        if conf is not None and not is_settings(conf):
            conf = None
            self.left_out.append("the allocator's settings, which hold other text than settings")
        return replace(
            metadata,
            source_file=source,
            torch_version=None if metadata.torch_version is None else _OWN_BUILD.sub("", metadata.torch_version),
            alloc_conf=conf,
            allocator_settings=self._settings(metadata.allocator_settings),
            notes=notes,
            extra=self._extra(metadata.extra),
        )

    def _note(self, text: str) -> str | None:
        """A sentence with its private names replaced; None where it still holds what looks like a path or a host."""
        private = {name: new for names in self._replaced.values() for name, new in names.items()}
        for name in sorted(private, key=len, reverse=True):
            if len(name) >= _LEAST_PRIVATE and name in text:
                text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", private[name], text)
        return None if _PATH.search(text) and not _is_plain(text) else text

    def _settings(self, settings: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in settings.items():
            is_odd = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) is None
            is_plain = value is None or isinstance(value, bool | int | float) or _is_table_of_sizes(value)
            if is_odd or not (is_plain or (isinstance(value, str) and is_settings(value))):
                self.left_out.append(f"the allocator's setting {'of an odd name' if is_odd else name}")
            else:
                found[name] = value
        return found

    def _extra(self, extra: dict[str, Any]) -> dict[str, Any]:
        found = {name: extra[name] for name in _EXTRAS if name in extra}
        parts = extra.get("device_parts")
        if parts:
            found["device_parts"] = {
                device: [[self.owner(part[0]), *part[1:]] for part in listed] for device, listed in parts.items()
            }
        left = set(extra) - set(found)
        if left:
            self.left_out.append(f"what is recorded beside the events and is not known here: {len(left)}")
        return found


def changed_allocations(before: Analysis, redaction: Redaction) -> int:
    """Allocations whose category is another without their names: those that only a private name told."""
    after = Analysis(redaction.trace, rules=before.rules)
    return sum(
        int(np.count_nonzero(a.attribution.category != b.attribution.category))
        for a, b in zip(before.devices, after.devices, strict=True)
    )


def _is_table_of_sizes(value: Any) -> bool:
    """Whether a setting is a table of whole numbers by whole numbers, as ``roundup_power2_divisions`` is."""
    return isinstance(value, dict) and all(
        isinstance(key, str) and key.isdecimal() and isinstance(number, int) for key, number in value.items()
    )


def _is_python(path: str) -> bool:
    return path.endswith(".py")


def _is_plain(text: str) -> bool:
    """Whether every part of a text with a stroke in it is of public words, such as ``keys/values``."""
    return all(
        word in WORDS or public_file(part) is not None
        for part in _PATH.findall(text)
        for word in (re.split(r"[/\\]", part.strip(".,:;()")) if "@" not in part else ("@",))
    )
