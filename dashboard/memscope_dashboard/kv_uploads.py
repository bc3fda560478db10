"""Configurations and request traces that a page sends: read once, kept here, and known to the page by an id."""

from __future__ import annotations

import base64
import binascii
import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import TypeVar

from memscope.errors import InputFileError, MemscopeError, UsageError
from memscope.files import unpacked
from memscope.recently_used import RecentlyUsed
from memscope.serving.model_config import ModelConfig, read_model_config
from memscope.serving.request_files import read_requests
from memscope.serving.requests import RequestTable
from memscope.units import MiB, format_bytes

UPLOAD_PREFIX = "upload:"
"""How the id of something that was sent begins."""
MAX_SENT_BYTES = 64 * MiB
_MAX_UNPACKED_BYTES = 256 * MiB
_N_KEPT = 8
_NAME_LIMIT = 100

Content = TypeVar("Content")


class Uploads:
    """The last few configurations and request traces that pages sent. No path ever comes from the browser."""

    def __init__(self) -> None:
        self._configs: RecentlyUsed[str, ModelConfig] = RecentlyUsed(_N_KEPT)
        self._requests: RecentlyUsed[str, RequestTable] = RecentlyUsed(_N_KEPT)
        self._guard = Lock()

    def add_config(self, name: str, contents: str) -> str:
        """Read a ``config.json`` and return its id.

        Raises
        ------
        MemscopeError
            If it is none.
        """
        content = _content(name, contents)
        config = _read(name, content, lambda path: replace(read_model_config(path), source=_plain_name(name)))
        config.kv_layers()
        return self._keep(self._configs, name, content, config)

    def add_requests(self, name: str, contents: str) -> str:
        """Read a request trace and return its id.

        Raises
        ------
        MemscopeError
            If it is none.
        """
        content = _content(name, contents)
        return self._keep(self._requests, name, content, _read(name, content, read_requests))

    def config(self, id_: str) -> ModelConfig:
        """A configuration that was sent.

        Raises
        ------
        UsageError
            If it is not kept any longer.
        """
        return self._find(self._configs, id_)

    def requests(self, id_: str) -> RequestTable:
        """A request trace that was sent.

        Raises
        ------
        UsageError
            If it is not kept any longer.
        """
        return self._find(self._requests, id_)

    def config_labels(self) -> dict[str, str]:
        """Ids of the configurations that are kept, and their models' names, by name."""
        with self._guard:
            labels = {id_: config.name for id_, config in self._configs.items()}
        return dict(sorted(labels.items(), key=lambda label: (label[1], label[0])))

    def _keep(self, kept: RecentlyUsed[str, Content], name: str, content: bytes, found: Content) -> str:
        id_ = f"{UPLOAD_PREFIX}{hashlib.sha256(content).hexdigest()[:16]}:{_plain_name(name)}"
        with self._guard:
            kept.put(id_, found)
        return id_

    def _find(self, kept: RecentlyUsed[str, Content], id_: str) -> Content:
        with self._guard:
            found = kept.get(id_)
        if found is None:
            raise UsageError(f"{upload_name(id_)} is not kept any longer: choose the file again")
        return found


def upload_name(id_: str) -> str:
    """The file's name in an id."""
    return id_.split(":", 2)[-1]


def _plain_name(name: str) -> str:
    """The last part of a name from a browser, printable and not too long."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    plain = "".join(character for character in last if character.isprintable()).strip(". ")
    return plain[-_NAME_LIMIT:] or "file"


def _content(name: str, contents: str) -> bytes:
    """What was sent, unpacked if it was packed, within limits."""
    try:
        sent = base64.b64decode(contents.split(",", 1)[-1], validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputFileError(_plain_name(name), "did not arrive whole: choose the file again") from error
    content = unpacked(_plain_name(name), sent)
    if len(sent) > MAX_SENT_BYTES or len(content) > _MAX_UNPACKED_BYTES:
        limit = format_bytes(_MAX_UNPACKED_BYTES if len(sent) <= MAX_SENT_BYTES else MAX_SENT_BYTES)
        raise InputFileError(_plain_name(name), f"is larger than {limit}: replay it with memscope serving")
    return content


def _read(name: str, content: bytes, read: Callable[[Path], Content]) -> Content:
    """Read content through a reader of files; its messages then name what was sent."""
    plain = _plain_name(name).removesuffix(".gz") or "file"
    with tempfile.TemporaryDirectory(prefix="memscope-") as folder:
        path = Path(folder) / "uploaded" / plain
        path.parent.mkdir()
        path.write_bytes(content)
        try:
            return read(path)
        except MemscopeError as error:
            raise UsageError(str(error).replace(str(path), plain)) from error
