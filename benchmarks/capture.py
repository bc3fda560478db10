"""What recording on a CUDA device costs: per allocator event over PyTorch's own history, draining, and host memory.

On a GPU, or on the emulated device where a CUDA build of PyTorch has none:

    python benchmarks/capture.py [--events 1000000]

The program is a small Llama that is trained. Its kernels take no time on the emulated device, so that everything that
recording adds counts more than on a GPU. Both recordings have Python stacks; steps with and without alternate.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import memscope
from memscope.capture.cuda._history import DEFAULT_MAX_HOST_BYTES, max_events
from memscope.capture.environment import read_environment

_STEPS = 12
_ROUNDS = 25


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000, help="length of the long run")
    arguments = parser.parse_args()
    _require_device()
    train = make_program()
    train()
    print_overhead(train)
    print_long_run(train, arguments.events)


def _require_device() -> None:
    """Start again on the emulated device where a CUDA build of PyTorch has no GPU."""
    from memscope.emulation.build import build_libraries
    from memscope.emulation.launch import EmulatedMachine, emulated_environment, is_emulated
    from memscope.emulation.torch_build import find_torch_build

    try:
        import torch

        if torch.cuda.is_available():
            print("on the emulated device" if is_emulated() else f"on {torch.cuda.get_device_name()}")
            return
        if torch.version.cuda is None:
            print("not measured: this needs a CUDA build of PyTorch")
            raise SystemExit
    except (ImportError, OSError, ValueError):
        pass  # a CUDA build without NVIDIA's libraries
    machine = EmulatedMachine("a device", 80 << 30, 500 << 20, (9, 0), 132)
    environment = emulated_environment(machine, build_libraries(find_torch_build(), print), os.environ)
    environment["FAKE_CUDA_WARN_READS"] = "0"
    os.execve(sys.executable, [sys.executable, *sys.argv], environment)


def make_program() -> Callable[[], None]:
    """A function that trains for one step."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = {"hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 8, "num_attention_heads": 8}
    with torch.device("cuda"):
        model = LlamaForCausalLM(LlamaConfig(num_key_value_heads=4, vocab_size=4096, use_cache=False, **shape))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def train() -> None:
        tokens = torch.randint(0, 4096, (4, 128)).cuda()
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return train


def n_calls() -> int:
    """Allocator calls so far."""
    import torch

    stats = torch.cuda.memory_stats()
    return sum(stats[name] for name in ("allocation.all.allocated", "allocation.all.freed", "active.all.freed"))


def timed(train: Callable[[], None]) -> tuple[float, float]:
    """Processor seconds, which other programs do not add to, and allocator calls of a few steps."""
    calls, begin = n_calls(), time.process_time()
    for _ in range(_STEPS):
        train()
    return time.process_time() - begin, n_calls() - calls


def print_overhead(train: Callable[[], None]) -> None:
    """Time per event without a history, with PyTorch's, and with a recording."""
    import torch

    times: dict[str, list[float]] = {"no history": [], "torch's history": [], "memscope.record": []}
    for _ in range(_ROUNDS):
        seconds, calls = timed(train)
        times["no history"].append(seconds / calls)
        torch.cuda.memory._record_memory_history(
            "all", context="all", stacks="python", max_entries=max_events(DEFAULT_MAX_HOST_BYTES, read_environment())
        )
        seconds, calls = timed(train)
        torch.cuda.memory._record_memory_history(None)
        times["torch's history"].append(seconds / calls)
        recorder = memscope.record()
        recorder.start()
        seconds, calls = timed(train)
        recorder.stop()
        times["memscope.record"].append(seconds / calls)
    for name, values in times.items():
        print(
            f"{name:16} {statistics.median(values) * 1e6:7.2f} µs an event (of {_ROUNDS}: {min(values) * 1e6:.2f} best)"
        )
    pairs = zip(times["memscope.record"], times["torch's history"], strict=True)
    added = [mine - torch_own for mine, torch_own in pairs]
    print(f"memscope.record adds {statistics.median(added) * 1e6:.2f} µs an event to torch's history (bound: 3)")


def print_long_run(train: Callable[[], None], n_events: int) -> None:
    """Draining's share of a long run, and the host memory that recording took."""
    with tempfile.TemporaryDirectory() as folder:
        resident_before = _resident_bytes()
        watch = _PeakWatch()
        recorder = memscope.record(Path(folder) / "long.memscope")
        begin = time.perf_counter()
        recorder.start()
        start_calls = n_calls()
        while n_calls() - start_calls < n_events:
            train()
        ran_s = time.perf_counter() - begin
        peak = watch.stop()
        begin = time.perf_counter()
        trace = recorder.stop()
        stop_s = time.perf_counter() - begin
    pauses = recorder.backend.history.pauses_s  # type: ignore[attr-defined]
    print(f"{trace.n_events:,} events in {ran_s:.1f} s, {trace.metadata.n_events_lost} lost")
    print(
        f"{len(pauses)} drains took {sum(pauses):.2f} s, {sum(pauses) / ran_s:.2%} of the run (bound: 5 %), "
        f"the longest {max(pauses, default=0.0) * 1e3:.0f} ms"
    )
    print(f"host memory: +{(peak - resident_before) / 2**20:.0f} MiB at most while it ran (ring and copy; bound: 1024)")
    print(f"stopping took {stop_s:.1f} s; peak of the whole process {_peak_bytes() / 2**20:.0f} MiB")


class _PeakWatch:
    """The most memory that this process and its copies had for themselves, looked at 20 times a second."""

    def __init__(self) -> None:
        self._peak = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def stop(self) -> int:
        """End, and return it."""
        self._ended.set()
        self._thread.join()
        return self._peak

    def _watch(self) -> None:
        while not self._ended.wait(0.05):
            self._peak = max(self._peak, _resident_bytes())


def _resident_bytes() -> int:
    """Proportional set size of this process and its children: what they share counts once."""
    total = 0
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    for pid in ("self", *children):
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))
    return total


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


if __name__ == "__main__":
    sys.exit(main())
