"""The device's own count in words: the finding, where its numbers come from, and why there are none."""

from __future__ import annotations

from memscope.attribution.driver_usage import (
    COLLECTIVES,
    CUDA_CONTEXT,
    NON_PYTORCH,
    OTHER_PROCESSES,
    PYTORCH_RESERVED,
    UNEXPLAINED,
    DriverUsage,
    ModelledCollectives,
    driver_usage_samples,
)
from memscope.device.device import Moment
from memscope.units import format_bytes, format_count, format_items
from memscope.words.headlines import where
from memscope.words.labels import row_label

_AGREES_BYTES = 1 << 30
_AGREES_FRAC = 0.02
"""What NVML and PyTorch may differ by and still agree: a CUDA context with its kernels, or a small share of what is
used."""


def device_finding(moment: Moment) -> str:
    """Who holds what PyTorch does not: ``Other processes hold 3.1 GiB of the device at step 1, backward``."""
    count = moment.ledger.driver_usage
    if count is None:
        return "What the device holds beyond PyTorch is not measured"
    sizes = {row.name: row.bytes for row in count.rows}
    others, unexplained = sizes.get(OTHER_PROCESSES, 0), sizes[UNEXPLAINED]
    own = {name: size for name, size in sizes.items() if name in (CUDA_CONTEXT, COLLECTIVES, NON_PYTORCH) and size}
    beyond = count.total_bytes - sizes[PYTORCH_RESERVED]
    at = where(_sampled(moment, count))
    if not beyond:
        return f"The device holds nothing but what PyTorch reserved at {at}"
    largest = max(others, unexplained, sum(own.values()))
    if largest == others:
        return f"Other processes hold {format_bytes(others)} of the device at {at}"
    if largest == unexplained:
        by = "nothing says by whom" if NON_PYTORCH in sizes else "this process and others were not told apart"
        return f"{format_bytes(unexplained)} of the device are used beyond PyTorch at {at}; {by}"
    named = sorted(own.items(), key=lambda item: -item[1])
    words = ", ".join(f"{row_label(name)} {format_bytes(size)}" for name, size in named)
    if beyond <= max(_AGREES_BYTES, _AGREES_FRAC * count.total_bytes):
        return f"NVML and PyTorch agree within {format_bytes(beyond)} at {at}: {words}"
    return f"This process holds {format_bytes(sum(own.values()))} beyond PyTorch at {at}: {words}"


def driver_usage_origin(moment: Moment, count: DriverUsage) -> str:
    """Which sample the numbers are of: ``Sampled after event 1,204 (one of 318 samples)``."""
    samples, is_usable = driver_usage_samples(moment.lifetimes)
    n_samples, n_usable = len(samples.moment), int(is_usable.sum())
    text = f"Sampled at {where(_sampled(moment, count))}, one of {format_count(n_samples)}"
    if n_usable < n_samples:
        text += f" samples, of which {format_count(n_usable)} were taken while no segment came or went"
    else:
        text += f" sample{'s' if n_samples > 1 else ''}"
    if not count.is_same_reserved:
        text += "; PyTorch had reserved a different size than at the chosen moment"
    return text


def why_not_measured(moment: Moment) -> str:
    """Why the device's own count is not known at a moment, and what to do about it."""
    recording = moment.device.recording
    reason = moment.ledger.not_measured
    text = f"{reason[:1].upper()}{reason[1:]}. "
    if recording.is_dry_run:
        if moment.ledger.modelled_collectives is not None:
            text += f"{collectives_words(moment.ledger.modelled_collectives)}. "
        return text + "To measure what else the device holds, record the script on a GPU: memscope run SCRIPT"
    if len(driver_usage_samples(moment.lifetimes)[0].moment):
        return text + (
            "A sample is set against what PyTorch reserved only where no segment came or went around it and it holds "
            "at least those. The lines show all samples as they were taken"
        )
    if recording.trace.metadata.source == "torch-snapshot":
        return text + (
            "A PyTorch snapshot holds no more than what was free at an out-of-memory error. "
            "A recording made with memscope run samples the device while the script works"
        )
    return text + (
        "A recording made with memscope run on a GPU samples the device while the script works; "
        "memscope doctor says whether NVML answers there"
    )


def collectives_words(collectives: ModelledCollectives) -> str:
    """What communicators would hold: ``NCCL (modelled): 1.0 GiB to 3.0 GiB beyond PyTorch, …``."""
    n = format_items(collectives.n_communicators, "communicator")
    low, high = format_bytes(collectives.low_bytes), format_bytes(collectives.high_bytes)
    return (
        f"NCCL (modelled): {low} to {high} beyond PyTorch for {n}; published sizes, not measured, and not taken off "
        "what the device has"
    )


def _sampled(moment: Moment, count: DriverUsage) -> Moment:
    return Moment(moment.device, count.event)
