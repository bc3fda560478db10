"""Groups of options: what a command has that takes them."""

from __future__ import annotations

from typing import Any

import click
import pytest

from memscope.cli.serving_options import (
    manager_options,
    memory_options,
    request_options,
    scheduler_options,
    token_options,
)
from memscope.errors import UsageError
from memscope.units import MiB

GROUPS = (request_options, memory_options, token_options, manager_options, scheduler_options)


@click.command()
@memory_options
@manager_options
def given(**options: Any) -> dict[str, Any]:
    return options


def test_no_option_is_in_two_groups() -> None:
    names = [name for group in GROUPS for option in group(lambda: None).__click_params__ for name in option.opts]  # type: ignore[attr-defined]
    assert len(names) == len(set(names)) == 33


def test_sizes_arrive_as_bytes_and_a_bad_one_names_its_option() -> None:
    options = given.main(["--weight-bytes", "512 MiB"], standalone_mode=False)
    assert options["weight_bytes"] == 512 * MiB
    assert options["page_size"] == 2 * MiB
    assert options["capacity"] is None
    with pytest.raises(UsageError, match="--kv-memory: 'much' is not a size"):
        given.main(["--kv-memory", "much"], standalone_mode=False)
