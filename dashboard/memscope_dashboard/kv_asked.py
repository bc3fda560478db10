"""What the simulation's controls ask for, and what is wrong with each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from memscope.errors import UsageError
from memscope.gpus import DEFAULT_GPU
from memscope.serving.managers import MANAGERS, MAX_LENGTH, PAGE_SIZES
from memscope.serving.requests import LENGTHS, GeneratorOptions
from memscope.serving.scheduler import SchedulerOptions
from memscope.units import parse_bytes
from memscope_dashboard.kv_board import MAX_REQUESTS, RequestsAsked, ServingAsked

FROM_FILE = "file"
"""Value of the choice of requests that stands for a file that was sent."""
DEFAULT_N_REQUESTS = 1000
DEFAULT_RATE = 40
"""So many a second are more than a whole region for each request can take in, and less than blocks on demand can."""
_MAX_PROMPT_TOKENS = 50_000_000
"""Of one simulation: each chunk of 16 of them is told apart, which takes memory."""
_MAX_COUNT = 1 << 20
_MAX_SEED = (1 << 31) - 1
_MAX_BLOCK_SIZES = 8

Errors = dict[str, str]


class _Reader:
    """Reads values one by one, and keeps what is wrong with them by name."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values
        self.errors: Errors = {}

    def text(self, name: str, default: str) -> str:
        return str(self._values.get(name) or default)

    def list(self, name: str) -> list[str]:
        return [str(item) for item in self._values.get(name) or ()]

    def size(self, name: str) -> int | None:
        text = self._values.get(name)
        try:
            found = parse_bytes(str(text)) if text and str(text).strip() else None
        except UsageError as error:
            self.errors[name] = str(error)
            return None
        if found == 0:
            self.errors[name] = "more than 0 is needed"
        return found

    def number(self, name: str, default: float | None, least: float, most: float) -> float | None:
        """A number from ``least`` to ``most``; the default where the control is empty."""
        value = self._values.get(name)
        if value is None or value == "":
            return default
        found = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
        if not least <= found <= most:
            self.errors[name] = f"a number from {least:g} to {most:,.0f}"
            return default
        return found

    def whole(self, name: str, default: int | None, least: int = 1, most: int = _MAX_COUNT) -> int | None:
        """A whole number, like :meth:`number`."""
        found = self.number(name, default, least, most)
        if found is not None and found != int(found):
            self.errors[name] = "a whole number"
            return default
        return None if found is None else int(found)


def asked_of(values: Mapping[str, Any]) -> tuple[ServingAsked | None, Errors]:
    """What the controls ask for, None if something is wrong, and what that is by the control's name."""
    read = _Reader(values)
    managers = tuple(name for name in MANAGERS if name in read.list("managers"))
    has_blocks = any(MANAGERS[name].has_blocks for name in managers or MANAGERS)
    block_sizes = _block_sizes(read)
    scheduler = _scheduler(read)
    requests = _requests(read)
    asked = ServingAsked(
        model=read.text("model", ""),
        gpu=read.text("gpu", DEFAULT_GPU),
        capacity_bytes=read.size("capacity"),
        utilisation_frac=(read.number("utilisation", 90, 1, 100) or 0) / 100,
        weight_format=read.text("weights", "none"),
        weight_bytes=read.size("weight-size"),
        kv_dtype=read.text("kv-dtype", "bf16"),
        tensor_parallel=read.whole("tensor-parallel", 1, 1, 1024) or 1,
        max_length=read.whole("max-length", None, 1, MAX_LENGTH),
        managers=managers,
        block_sizes=block_sizes if has_blocks else (),
        page_bytes=_page_bytes(read),
        scheduler=scheduler or SchedulerOptions(),
        requests=requests or RequestsAsked(),
    )
    is_complete = not read.errors and scheduler is not None and requests is not None
    return (asked if is_complete else None), read.errors


def _page_bytes(read: _Reader) -> int:
    known = {str(size): size for size in PAGE_SIZES}
    return known.get(read.text("page", ""), PAGE_SIZES[-1])


def _block_sizes(read: _Reader) -> tuple[int, ...]:
    sizes = []
    for text in read.list("block-sizes"):
        number = text.strip().replace(",", "")
        if not number.isascii() or not number.isdigit() or not 1 <= int(number) <= MAX_LENGTH:
            read.errors["block-sizes"] = f"{text!r} is not a number of tokens"
            return ()
        sizes.append(int(number))
    if len(set(sizes)) > _MAX_BLOCK_SIZES:
        read.errors["block-sizes"] = f"at most {_MAX_BLOCK_SIZES} at a time"
    return tuple(sorted(set(sizes)))


def _scheduler(read: _Reader) -> SchedulerOptions | None:
    is_swap = read.text("preemption", "recompute") == "swap"
    swap_bytes = read.size("swap")
    if is_swap and swap_bytes is None:
        read.errors.setdefault("swap", "swapping needs some")
        return None
    return SchedulerOptions(
        policy=read.text("scheduler", "chunked"),
        max_requests=read.whole("max-requests", 256) or 1,
        max_step_tokens=read.whole("step-tokens", 8192) or 1,
        preemption="swap" if is_swap else "recompute",
        swap_bytes=swap_bytes or 0 if is_swap else 0,
    )


def _requests(read: _Reader) -> RequestsAsked | None:
    lengths = read.text("lengths", "sharegpt")
    if lengths == FROM_FILE:
        upload = read.text("requests-file", "")
        first = read.whole("first", None, 1, MAX_REQUESTS)
        speed_up = read.number("speed-up", 1, 0.001, 1e6) or 1.0
        return RequestsAsked(upload=upload, n_first=first, speed_up=speed_up) if upload else None
    shared_frac = (read.number("shared", 0, 0, 100) or 0) / 100
    made = GeneratorOptions(
        n_requests=read.whole("n", DEFAULT_N_REQUESTS, 1, _most_requests(lengths, shared_frac)) or 1,
        rate_per_s=read.number("rate", DEFAULT_RATE, 0.001, 1e6) or 1.0,
        lengths=lengths,
        burstiness=read.number("burstiness", 1, 0.01, 1e4) or 1.0,
        shared_prefix_frac=shared_frac,
    )
    return RequestsAsked(made, read.whole("seed", 0, 0, _MAX_SEED) or 0)


def _most_requests(lengths: str, shared_frac: float) -> int:
    """How many requests of such lengths can be made at once."""
    if lengths not in LENGTHS:
        return MAX_REQUESTS
    each = LENGTHS[lengths][0].mean + shared_frac * GeneratorOptions().prefix_tokens
    return min(MAX_REQUESTS, int(_MAX_PROMPT_TOKENS / each))
