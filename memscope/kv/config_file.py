"""Reading a model's ``config.json``, or finding a well-known one by its name."""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

from memscope.errors import InputFileError, UsageError
from memscope.kv.model_config import ModelConfig
from memscope.kv.presets import PRESETS

_MAX_BYTES = 16 << 20


def read_model_config(path_or_name: str | Path) -> ModelConfig:
    """A model's configuration, from a file (``.gz`` too), a folder that holds ``config.json``, or a preset's name.

    Raises
    ------
    UsageError
        If it is neither a file nor a preset; the message lists the presets.
    InputFileError
        If the file is not a configuration.
    """
    path = Path(path_or_name)
    if path.is_dir():
        path = path / "config.json"
    if not path.exists():
        preset = PRESETS.get(str(path_or_name).lower())
        if preset is not None:
            return ModelConfig(str(path_or_name).lower(), preset.source, preset.values)
        raise UsageError(f"{path_or_name}: there is no such file, and no preset of that name ({', '.join(PRESETS)})")
    values = _read_object(path)
    text = values.get("text_config")
    is_partial = isinstance(text, dict)
    if isinstance(text, dict):
        values = text
    name = values.get("_name_or_path") or (path.parent.name if path.name.startswith("config.json") else path.stem)
    return ModelConfig(str(name or path), str(path), values, is_partial=is_partial)


def _read_object(path: Path) -> dict[str, Any]:
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
        values = json.loads(content.decode("utf-8")) if len(content) <= _MAX_BYTES else None
    except (OSError, EOFError, zlib.error) as error:
        raise InputFileError(path, f"cannot be read: {error}") from error
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise InputFileError(path, f"is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise InputFileError(path, "is not a model's configuration: a JSON object is expected")
    return values
