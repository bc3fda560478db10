"""``memscope kv``: what the key/value cache of a recording holds and wastes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from memscope.cli.options import (
    GroupedCommand,
    console,
    force_option,
    grouped,
    html_option,
    json_option,
    load_trace,
    print_json,
    rules_option,
    trace_argument,
    wrote,
)
from memscope.cli.serving import token_options
from memscope.cli.sweeping import progress
from memscope.errors import UsageError, needed_for

if TYPE_CHECKING:
    from memscope.kv_cache.lens import KvLens
    from memscope.reports.kv_cache import LensReport


_NOW_CALLED = "memscope: 'memscope kv --config' is now 'memscope serving', and goes with the next release"


class _KvCommand(GroupedCommand):
    """Takes for one more release what ``memscope serving`` takes, where no TRACE is named."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """The context of this verb, or of the one that simulates."""
        from memscope.cli.serving import serving

        is_old = any(argument.startswith(("--config", "--list")) for argument in args)
        if is_old and _is_all_about(serving, args, parent):
            click.echo(_NOW_CALLED, err=True)
            return serving.make_context("serving", args, parent, **extra)
        try:
            return super().make_context(info_name, list(args), parent, **extra)
        except click.NoSuchOption as error:
            if not any(error.option_name in parameter.opts for parameter in serving.params):
                raise
            text = f"{error.option_name} is about simulated serving: 'memscope serving' takes it, without a TRACE"
            raise UsageError(text) from None


def _is_all_about(command: click.Command, args: Sequence[str], parent: click.Context | None) -> bool:
    """Whether a command knows every option of a line, and nothing else is on it."""
    try:
        _, others, _ = command.make_parser(click.Context(command, parent=parent)).parse_args(list(args))
    except click.UsageError:
        return False
    return not others


@click.command(cls=_KvCommand)
@trace_argument
@grouped(
    "The moment",
    click.option("--device", type=int, default=None, help="Device of the trace. [default: every one that has a cache]"),
    click.option("--at", "event", type=int, default=None, help="Moment after this event. [default: cache's peak]"),
    rules_option,
)
@grouped(
    "The model",
    click.option(
        "--config",
        default=None,
        help="The model: its config.json, a folder with one, or a preset. Tells a token's bytes.",
    ),
)
@token_options
@grouped("Output", json_option, html_option, force_option)
def kv(
    trace: Path,
    config: str | None,
    kv_dtype: str,
    tensor_parallel: int,
    device: int | None,
    event: int | None,
    rules: Path | None,
    as_json: bool,
    output: Path | None,
    force: bool,
) -> None:
    """What the key/value cache of a recording holds and wastes.

    Its tokens, unused tails and stale copies, by layer and by cache, and what growing by copying costs. How many
    requests a GPU could serve says memscope serving.
    """
    from memscope.reports.kv_cache import lens_json, print_lens

    if output is not None:
        with needed_for("an HTML page", "dash"):
            from memscope.reports.html import write_kv_html
    analysis = load_trace(trace, rules)
    analysis.require_consistent()
    token_bytes = None if config is None else _token_bytes(config, kv_dtype, tensor_parallel)
    asked = analysis.devices if device is None and event is None else [analysis.device_of_event(event, device)]
    found = [_report(analysis.opinions(one.index).kv_lens, event, token_bytes) for one in asked]
    reports = [report for report in found if report is not None]
    if as_json:
        print_json(lens_json(analysis, reports))
    if output is not None:
        write_kv_html(analysis, reports, output, overwrite=force)
        wrote(output)
    elif not as_json:
        print_lens(analysis, reports, console())


def _report(lens: KvLens, event: int | None, token_bytes: int | None) -> LensReport | None:
    from memscope.reports.kv_cache import lens_report

    if not lens or not len(lens.growth):
        return lens_report(lens, event, token_bytes=token_bytes)
    with progress("replaying") as on_done:
        return lens_report(lens, event, token_bytes=token_bytes, on_done=on_done)


def _token_bytes(model: str, kv_dtype: str, tensor_parallel: int) -> int:
    """Bytes of a token by a model's configuration."""
    from memscope.serving.model_config import read_model_config
    from memscope.serving.shapes import KvShape

    return KvShape(read_model_config(model).kv_layers(), kv_dtype, tensor_parallel).bytes_per_token
