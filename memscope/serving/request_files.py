"""Reading request traces: the Azure, BurstGPT and plain CSV files, and Mooncake's JSON lines; ``.gz`` as they are."""

from __future__ import annotations

import csv
import io
import json
import math
from array import array
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from memscope.errors import InputFileError
from memscope.files import require_file, unpacked
from memscope.serving.requests import RequestTable, in_order_of_arrival

MOONCAKE_CHUNK_TOKENS = 512
"""Tokens that one ``hash_ids`` entry stands for. Source: the Mooncake trace's README."""
_MAX_TOKENS = 1 << 24
_MAX_SAMPLES = 1 << 20
_MAX_SECONDS = 10 * 366 * 86_400
_COLUMNS = {
    "Azure": ("timestamp", "contexttokens", "generatedtokens"),
    "BurstGPT": ("timestamp", "request tokens", "response tokens"),
    "plain": ("arrival_s", "prompt_tokens", "output_tokens"),
}
"""The columns of each known CSV, in small letters: arrival, tokens in, tokens out."""
_SAMPLES = "n_samples"
"""A plain CSV may have it."""


def read_requests(path: str | Path) -> RequestTable:
    """Read a request trace; its kind is seen from its first line.

    Azure: ``TIMESTAMP,ContextTokens,GeneratedTokens``. BurstGPT: ``Timestamp,…,Request tokens,Response tokens,…``,
    whose rows without a response (failed calls) are left out. Plain: ``arrival_s,prompt_tokens,output_tokens``,
    and ``n_samples`` if requests ask for several sequences.
    Mooncake: one object a line with ``timestamp`` (milliseconds), ``input_length``, ``output_length`` and ``hash_ids``.

    Raises
    ------
    InputFileError
        If the file cannot be read, or a row is not as it should be; the message names the row.
    """
    path = Path(path)
    lines = _read_text(path)
    start = lines.lstrip()[:1]
    if not start:
        raise InputFileError(path, "is empty")
    table = _read_mooncake(path, lines) if start == "{" else _read_csv(path, lines)
    if not len(table):
        raise InputFileError(path, "has no request that generates anything")
    return table


def _read_text(path: Path) -> str:
    try:
        require_file(path)
        return unpacked(path, path.read_bytes()).decode("utf-8-sig")
    except OSError as error:
        raise InputFileError(path, f"cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise InputFileError(path, "is not text: requests are read from CSV or JSON lines") from error


def _read_csv(path: Path, text: str) -> RequestTable:
    try:
        rows = csv.reader(io.StringIO(text), strict=True)
        header = [name.strip().lower() for name in next(rows)]
        kind, places = _columns(path, header)
        arrival, prompt, output, samples = array("q"), array("q"), array("q"), array("q")
        for number, row in enumerate(rows, start=2):
            if not row:
                continue
            if len(row) <= max(places):
                raise InputFileError(path, f"row {number} has {len(row)} columns, {max(places) + 1} are needed")
            n_output = _tokens(path, number, row[places[2]], least=0 if kind == "BurstGPT" else 1)
            if n_output == 0:
                continue
            arrival.append(_time_us(path, number, row[places[0]]))
            prompt.append(_tokens(path, number, row[places[1]]))
            output.append(n_output)
            if len(places) > len(_COLUMNS[kind]):
                samples.append(_whole(path, number, row[places[3]], "samples", _MAX_SAMPLES))
    except csv.Error as error:
        raise InputFileError(path, f"is not CSV: {error}") from error
    if not len(arrival):
        raise InputFileError(path, "has no request that generates anything")
    times, ins, outs = (np.array(column, np.int64) for column in (arrival, prompt, output))
    each = np.array(samples, np.int64) if len(samples) else None
    return in_order_of_arrival(times, ins, outs, f"{path.name} ({kind} CSV)", each)


def _columns(path: Path, header: list[str]) -> tuple[str, list[int]]:
    for kind, names in _COLUMNS.items():
        if all(name in header for name in names):
            optional = (_SAMPLES,) if kind == "plain" and _SAMPLES in header else ()
            return kind, [header.index(name) for name in (*names, *optional)]
    known = "; ".join(",".join(names) for names in _COLUMNS.values())
    raise InputFileError(path, f"row 1 does not name the columns of a known request trace ({known})")


def _tokens(path: Path, number: int, text: str, least: int = 1) -> int:
    return _whole(path, number, text, "tokens", _MAX_TOKENS, least)


def _whole(path: Path, number: int, text: str, what: str, most: int, least: int = 1) -> int:
    try:
        n = float(text)
    except ValueError:
        n = math.nan
    if not (least <= n <= most) or n != int(n):
        raise InputFileError(path, f"row {number}: {text!r} is not a number of {what} from {least}")
    return int(n)


def _time_us(path: Path, number: int, text: str) -> int:
    """Seconds, or a date and time of day, in microseconds."""
    try:
        seconds = float(text)
    except ValueError:
        return _date_us(path, number, text)
    if not 0 <= seconds <= _MAX_SECONDS:
        raise InputFileError(path, f"row {number}: {text!r} is not a time in seconds from 0")
    return round(seconds * 1e6)


def _date_us(path: Path, number: int, text: str) -> int:
    moment, _, fraction = text.strip().replace("T", " ").partition(".")
    try:
        when = datetime.strptime(moment, "%Y-%m-%d %H:%M:%S").replace(tzinfo=timezone.utc)
        micros = int((fraction + "000000")[:6]) if fraction.isdigit() or not fraction else -1
    except ValueError:
        micros = -1
    if micros < 0:
        raise InputFileError(path, f"row {number}: {text!r} is neither seconds nor a date and time")
    return int(when.timestamp()) * 1_000_000 + micros


def _objects(path: Path, text: str) -> Iterator[tuple[int, dict[str, object]]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise InputFileError(path, f"row {number} is not JSON: {error}") from error
        if not isinstance(found, dict):
            raise InputFileError(path, f"row {number} is not a JSON object")
        yield number, found


def _read_mooncake(path: Path, text: str) -> RequestTable:
    arrival, prompt, output = array("q"), array("q"), array("q")
    lengths, ids = array("q"), array("q")
    for number, row in _objects(path, text):
        values = [row.get(key) for key in ("timestamp", "input_length", "output_length")]
        if any(isinstance(value, bool) or not isinstance(value, int | float) for value in values):
            raise InputFileError(path, f"row {number}: timestamp, input_length and output_length must be numbers")
        hashes = row.get("hash_ids")
        arrival.append(_time_us(path, number, str(float(str(values[0])) / 1000)))
        prompt.append(_tokens(path, number, str(values[1])))
        output.append(_tokens(path, number, str(values[2])))
        n_needed = -(-prompt[-1] // MOONCAKE_CHUNK_TOKENS)
        if not isinstance(hashes, list) or len(hashes) < n_needed:
            raise InputFileError(
                path, f"row {number}: {n_needed} hash_ids are needed for {prompt[-1]:,} tokens of input"
            )
        if any(isinstance(i, bool) or not isinstance(i, int) or not 0 <= i < 1 << 62 for i in hashes):
            raise InputFileError(path, f"row {number}: hash_ids must be whole numbers from 0")
        lengths.append(n_needed)
        ids.extend(hashes[:n_needed])
    times = np.array(arrival, np.int64)
    order = np.argsort(times, kind="stable")
    starts = np.concatenate(([0], np.cumsum(np.array(lengths, np.int64))))
    _, dense = np.unique(np.array(ids, np.int64), return_inverse=True)
    if np.any(order[1:] < order[:-1]):
        dense = np.concatenate([dense[starts[i] : starts[i + 1]] for i in order])
    lengths_in_order = np.array(lengths, np.int64)[order]
    return RequestTable(
        times[order] - times[order[0]],
        np.array(prompt, np.int64)[order],
        np.array(output, np.int64)[order],
        f"{path.name} (Mooncake)",
        np.concatenate(([0], np.cumsum(lengths_in_order))),
        dense.astype(np.int64),
        MOONCAKE_CHUNK_TOKENS,
    )
