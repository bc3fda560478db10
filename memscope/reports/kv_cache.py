"""What a recorded key/value cache holds and wastes, as text and as JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.text import Text

from memscope.device.recording import RecordedTrace
from memscope.kv_cache.alternatives import SUMMARIES, GrowthReplay, replay_without_copies
from memscope.kv_cache.lens import KvLens, KvRow
from memscope.kv_cache.series import SPLITS
from memscope.reports.json import trace_json
from memscope.reports.terminal import Column, FittedTable, Kind
from memscope.reports.text import print_trust_header, when
from memscope.trace.schema import NONE_ID
from memscope.units import format_bytes, format_count, format_fraction
from memscope.words.kv_cache import LABELS, MEANINGS, N_POOLS, growth_verdict, kinds_words, layer_runs, pool_words

NO_CACHE = "No key/value cache is known of in this trace"
HOW_CACHES_ARE_KNOWN = (
    "Caches of Hugging Face models are found by themselves where memscope records; of other programs' by stack, by "
    'memscope.register_kv_cache, or by memscope.tag("kv_cache").'
)
_N_CACHES, _N_LAYER_RUNS = 12, 80


@dataclass(frozen=True, slots=True)
class LensReport:
    """One device's cache, at one moment.

    Attributes
    ----------
    event
        The moment: the cache's own peak unless another was asked for.
    replay
        With and without growing by copying; None where nothing grew so, or it cannot be replayed.
    token_bytes
        Bytes of one token by a model's configuration, None where none was given.
    """

    lens: KvLens
    event: int
    replay: GrowthReplay | None
    token_bytes: int | None = None

    @property
    def total(self) -> KvRow:
        """All of the cache at the moment."""
        return self.lens.total_at(self.event)

    def held_tokens(self) -> tuple[int | None, str]:
        """Tokens of all sequences held at the moment, and how that is known."""
        tokens = self.lens.tokens_at(self.event)
        if tokens is not None:
            return tokens, "as the program's own cache counted them after its last pass"
        if self.token_bytes and self.total.token_bytes:
            return self.total.token_bytes // self.token_bytes, "bytes that hold tokens ÷ the configuration's"
        if self.total.untold_bytes:
            return None, "only the owner of these tensors knows"
        return None, "not recorded: a model's configuration would give the bytes of a token"

    def room_tokens(self, row: KvRow) -> int | None:
        """Tokens that a pool has room for, None without a configuration."""
        return row.untold_bytes // self.token_bytes if self.token_bytes else None


def lens_report(
    lens: KvLens,
    event: int | None = None,
    *,
    token_bytes: int | None = None,
    on_done: Callable[[int, int], None] | None = None,
) -> LensReport | None:
    """Work everything out; None where a device has no key/value cache.

    Raises
    ------
    UsageError
        If the device has no such event.
    """
    if event is not None:
        lens.device.at(event)
    if not lens:
        return None
    moment = lens.peak_event if event is None else event
    return LensReport(lens, moment, replay_without_copies(lens, on_done), token_bytes)


def lens_json(recording: RecordedTrace, reports: Sequence[LensReport]) -> dict[str, Any]:
    """The object of ``memscope kv TRACE --json``."""
    return {
        "trace": trace_json(recording),
        "warnings": list(recording.completeness.warnings),
        "devices": [_device_json(report) for report in reports],
    }


def _device_json(report: LensReport) -> dict[str, Any]:
    lens, event = report.lens, report.event
    tokens, source = report.held_tokens()
    return {
        "device": lens.device.index,
        "event": event,
        "peak_event": lens.peak_event,
        "peak_bytes": lens.total_at(lens.peak_event).block_bytes,
        **{name: value for name, value in _row_json(report.total).items() if name not in ("name", "key")},
        "held_tokens": tokens,
        "held_tokens_source": source,
        "bytes_per_token": lens.bytes_per_token(event),
        "configured_bytes_per_token": report.token_bytes,
        "layers": [_row_json(row) for row in lens.by_layer(event)],
        "caches_then": [_row_json(row) for row in lens.by_cache(event)],
        "caches": [{**asdict(cache), "kinds": dict(cache.kinds)} for cache in lens.caches],
        "pools": [{**_row_json(row), "room_tokens": report.room_tokens(row)} for row in lens.pools_at(event)],
        "growth": {**asdict(lens.cost), "replays": _replays_json(report.replay)},
    }


def _row_json(row: KvRow) -> dict[str, Any]:
    return {**asdict(row), "block_bytes": row.block_bytes}


def _replays_json(replay: GrowthReplay | None) -> list[dict[str, Any]]:
    if replay is None:
        return []
    return [
        {
            "name": one.name,
            "exactness": one.result.exactness,
            "peak_reserved_bytes": one.result.peak_reserved_bytes,
            "peak_allocated_bytes": one.peak_allocated_bytes,
            "free_at_peak_bytes": one.free_at_peak_bytes,
            "saved_bytes": replay.saved_bytes(one),
            "oom_event": None if one.result.oom is None else one.result.oom.event,
        }
        for one in replay.alternatives
    ]


def print_lens(recording: RecordedTrace, reports: Sequence[LensReport], console: Console) -> None:
    """Print each device's cache: what it held, by layer and by cache, and what growing cost."""
    print_trust_header(recording, console)
    if not reports:
        console.print()
        console.print(Text(f"{NO_CACHE}.", style="bold"))
        console.print(f"  {HOW_CACHES_ARE_KNOWN}")
    for report in reports:
        console.print()
        _print_device(report, console)


def _print_device(report: LensReport, console: Console) -> None:
    lens, total = report.lens, report.total
    moment = lens.device.at(report.event)
    is_most = lens.device.n_events and report.event == lens.peak_event
    at = when(moment) if lens.device.n_events else "in the snapshot"
    size = f"key/value cache {format_bytes(total.block_bytes)}{', the most it ever was' if is_most else ''}"
    console.print(Text(f"Device {lens.device.index} {at}: {size}", style="bold"))
    if total.block_bytes:
        _print_split(total, console)
        _print_tokens(report, console)
        _print_layers(lens.by_layer(report.event), console)
    _print_caches(report, console)
    _print_pools(report, console)
    _print_growth(report, console)


def _print_split(total: KvRow, console: Console) -> None:
    table = FittedTable(
        Column("", Kind.NAME),
        Column("size"),
        Column("of the cache"),
        Column("", Kind.WORDS, place=1, style="dim", called="what the rows mean"),
    )
    for name in SPLITS:
        size = getattr(total, name)
        if size:
            share = format_fraction(size / total.block_bytes)
            table.add_row(LABELS[name], format_bytes(size), share, MEANINGS[name])
    table.print(console)


def _print_tokens(report: LensReport, console: Console) -> None:
    tokens, source = report.held_tokens()
    held = "tokens held: not known" if tokens is None else f"tokens held: {format_count(tokens)}"
    console.print(f"  {held} ({source})")
    recorded, configured = report.lens.bytes_per_token(report.event), report.token_bytes
    if recorded is not None:
        console.print(f"  a token takes {format_bytes(recorded)} in all layers on this device")
    if configured is not None and recorded is not None and recorded != configured:
        console.print(
            Text(f"  by the configuration it would take {format_bytes(configured)}: not this model?", style="yellow")
        )
    elif configured is not None and recorded is None:
        console.print(f"  by the configuration a token takes {format_bytes(configured)}")


def _print_layers(rows: Sequence[KvRow], console: Console) -> None:
    if len(rows) == 1 and rows[0].key == NONE_ID:
        return
    shown = [split for split in SPLITS if any(getattr(row, split) for row in rows)]
    columns = (Column(LABELS[split], place=1 + i) for i, split in enumerate(shown))
    table = FittedTable(Column("layer", Kind.NAME), Column("size, each"), *columns)
    runs = layer_runs(rows)
    for name, row, n in runs[:_N_LAYER_RUNS]:
        sizes = [format_bytes(getattr(row, split)) if getattr(row, split) else "" for split in shown]
        table.add_row(name, f"{format_bytes(row.block_bytes)}{f' × {n}' if n > 1 else ''}", *sizes)
    table.print(console)
    if len(runs) > _N_LAYER_RUNS:
        console.print(Text(f"  and {format_count(len(runs) - _N_LAYER_RUNS)} more", style="dim"))


def _print_caches(report: LensReport, console: Console) -> None:
    caches = report.lens.caches
    if not caches:
        return
    shown = sorted(caches, key=lambda cache: -cache.peak_bytes)[:_N_CACHES]
    table = FittedTable(
        Column("cache", Kind.NAME),
        Column("layers", place=5),
        Column("sequences", place=3),
        Column("tokens"),
        Column("room", place=2),
        Column("a token", place=1),
        Column("peak"),
        Column("kept by", Kind.WORDS, place=4, style="dim"),
    )
    for cache in sorted(shown, key=lambda cache: cache.cache_id):
        table.add_row(
            str(cache.cache_id),
            format_count(cache.n_layers),
            _count(cache.n_sequences),
            _count(cache.n_tokens),
            "grows" if cache.capacity_tokens is None and cache.kinds else _count(cache.capacity_tokens),
            "" if cache.bytes_per_token is None else format_bytes(cache.bytes_per_token),
            format_bytes(cache.peak_bytes),
            kinds_words(cache),
        )
    table.print(console)
    if len(caches) > len(shown):
        rest = sum(cache.peak_bytes for cache in caches) - sum(cache.peak_bytes for cache in shown)
        console.print(
            Text(
                f"  {len(caches) - len(shown):,} smaller caches: {format_bytes(rest)} together, each at its own peak",
                style="dim",
            )
        )


def _print_pools(report: LensReport, console: Console) -> None:
    pools = report.lens.pools_at(report.event)
    for row in pools[:N_POOLS]:
        room = report.room_tokens(row)
        words = "" if room is None else f", room for {format_count(room)} tokens"
        console.print(Text(f"  {pool_words(row)}{words}"))
    if len(pools) > N_POOLS:
        console.print(Text(f"  and {format_count(len(pools) - N_POOLS)} smaller ones", style="dim"))


def _print_growth(report: LensReport, console: Console) -> None:
    cost, replay = report.lens.cost, report.replay
    if not cost.n_copies:
        return
    console.print()
    console.print(
        Text(
            f"It grows by copying: {format_count(cost.n_copies)} copies moved {format_bytes(cost.moved_bytes)}; "
            f"{growth_verdict(replay)}",
            style="bold",
        )
    )
    console.print(f"  old tensors beside their replacements: {format_bytes(cost.copy_peak_bytes)} at most")
    if replay is None:
        return
    table = FittedTable(
        Column("the same requests, the cache", Kind.NAME),
        Column("peak reserved"),
        Column("saved", place=1),
        Column("peak allocated", place=2),
        Column("free at the peak", place=3),
    )
    for one in replay.alternatives:
        saved, oom = replay.saved_bytes(one), one.result.oom
        table.add_row(
            one.name,
            "out of memory" if oom is not None else format_bytes(one.result.peak_reserved_bytes),
            "" if saved is None or one is replay.alternatives[0] else _signed(saved),
            format_bytes(one.peak_allocated_bytes),
            format_bytes(one.free_at_peak_bytes),
        )
    table.print(console)
    for name, meaning in SUMMARIES.items():
        console.print(Text(f"  {name}: {meaning}", style="dim"))
    how = "exact" if replay.alternatives[0].result.exactness == "exact" else "modelled"
    console.print(Text(f"  replayed in PyTorch's allocator under the recorded settings: {how}", style="dim"))
    for note in replay.notes:
        console.print(Text(f"  {note}", style="dim"))


def _signed(saved: int) -> str:
    return f"−{format_bytes(-saved)}" if saved < 0 else format_bytes(saved)


def _count(n: int | None) -> str:
    return "not recorded" if n is None else format_count(n)
