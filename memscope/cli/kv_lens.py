"""``memscope kv TRACE``: the key/value cache of a recording."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from memscope.cli.options import console, load_trace, print_json
from memscope.cli.sweeping import progress
from memscope.errors import UsageError

if TYPE_CHECKING:
    from memscope.reports.kv_cache import LensReport

_SUITS_A_TRACE = {"trace", "config", "kv_dtype", "tensor_parallel", "device", "event", "rules", "as_json"}
_NEEDS_A_TRACE = ("device", "event", "rules")


def refuse_options_that_do_not_suit(context: click.Context) -> None:
    """Options of the simulation say nothing about a trace, and the other way round.

    Raises
    ------
    UsageError
        If there are such.
    """
    given = [
        parameter
        for parameter in context.command.params
        if context.get_parameter_source(str(parameter.name)) == ParameterSource.COMMANDLINE
    ]
    if context.params["trace"] is None:
        for parameter in given:
            if parameter.name in _NEEDS_A_TRACE:
                raise UsageError(f"{parameter.opts[-1]} is about a recording: name a TRACE too")
        if context.params["config"] is None:
            raise UsageError("name a TRACE to look into, or --config MODEL to simulate serving")
        return
    for parameter in given:
        if parameter.name not in _SUITS_A_TRACE:
            raise UsageError(f"{parameter.opts[-1]} is about simulated serving: leave out the TRACE, or the option")


def show_lens(trace: Path, given: dict[str, Any], *, as_json: bool) -> None:
    """Print what a recording's key/value cache held.

    Raises
    ------
    MemscopeError
        If the trace or the configuration cannot be read, or there is no such device or event.
    """
    from memscope.reports.kv_cache import lens_json, print_lens

    analysis = load_trace(trace, given["rules"])
    analysis.require_consistent()
    token_bytes = _token_bytes(given)
    devices = [given["device"]] if given["device"] is not None or given["event"] is not None else analysis.devices
    reports: list[LensReport] = []
    for device in devices:
        report = _report(analysis, device, given["event"], token_bytes)
        reports += [report] if report is not None else []
    if as_json:
        print_json(lens_json(analysis, reports))
    else:
        print_lens(analysis, reports, console())


def _report(analysis: Any, device: int | None, event: int | None, token_bytes: int | None) -> LensReport | None:
    from memscope.reports.kv_cache import lens_report

    if event is not None:
        device = analysis.at(event, device).device
    if not analysis.kv_lens(device):
        return None
    if not len(analysis.kv_lens(device).growth):
        return lens_report(analysis, device, event, token_bytes=token_bytes)
    with progress("replaying") as on_done:
        return lens_report(analysis, device, event, token_bytes=token_bytes, on_done=on_done)


def _token_bytes(given: dict[str, Any]) -> int | None:
    """Bytes of a token by the configuration, None without one."""
    from memscope.serving.model_config import read_model_config
    from memscope.serving.shapes import KvShape

    if given["config"] is None:
        return None
    config = read_model_config(given["config"])
    return KvShape(config.kv_layers(), given["kv_dtype"], given["tensor_parallel"]).bytes_per_token
