"""Sorting and what is made of it, as torch 2.11's CUDA kernels ask for memory on an emulated A100."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.capture.programs import on_device, requests_of

torch = pytest.importorskip("torch")

_SELECTED = [1_279, 1_279]


@pytest.mark.parametrize(
    ("run", "shape", "asked"),
    [
        (lambda x: x.sort(-1), (1 << 20,), [4_194_304, 8_388_608, 8_388_608, 12_941_823]),
        (lambda x: x.sort(-1), (1024, 2048), [8_388_608, 16_777_216, 16_384]),
        (lambda x: x.sort(0), (16, 65536), [4_194_304, 8_388_608, 128]),
        (
            lambda x: x.sort(-1),
            (16, 65536),
            [4_194_304, 8_388_608, 8_388_608, 8_388_608, 4_194_304, 12_941_823, 283_135],
        ),
        (lambda x: x.sort(-1), (2, 1_000_000), [8_000_000, 16_000_000, 8_000_000, 12_342_527, 12_342_527]),
        (lambda x: x.topk(8), (1 << 20,), [32, 64, 4, 8, 8, 300_032, 1_024, 2_344, 2_344, *_SELECTED]),
        (
            lambda x: x.topk(50),
            (1024, 2048),
            [204_800, 409_600, 4_096, 8_192, 8_192, 524_288, 1_048_576, 4_096, 4_096, *_SELECTED],
        ),
        (lambda x: x.topk(8), (4096, 64), [131_072, 262_144]),
        (lambda x: x.cumsum(-1), (1 << 20,), [4_194_304, 5_375]),
        (lambda x: x.cumsum(-1), (1024, 2048), [8_388_608]),
        (lambda x: x.median(), (1024, 2048), [8_388_608, 16_777_216, 16_777_216, 25_873_919, 1, 4]),
        (lambda _: torch.randperm(1000, device="cuda"), (1,), [8_000, 8, 8_000, 4_000, 4_000, 1]),
    ],
    ids=[
        *("row", "short", "first", "rows", "long", "topk", "topk-rows", "topk-short", "scan", "scans"),
        "median",
        "perm",
    ],
)
def test_keys_and_indices_are_copied(
    run: Callable[[torch.Tensor], object], shape: tuple[int, ...], asked: list[int]
) -> None:
    assert requests_of(run, on_device(*shape)) == asked


def test_tokens_are_drawn_with_noise_as_large_as_the_shares() -> None:
    once = requests_of(lambda x: torch.multinomial(x, 1), on_device(32, 32_000))
    again = requests_of(lambda x: torch.multinomial(x, 4, replacement=True), on_device(32, 32_000))
    assert once.count(4_096_000) == 1
    assert again.count(4_096_000) == 3


def test_the_inverse_of_unique_values_takes_their_places_too() -> None:
    values, both = (
        requests_of(lambda x, r=r: torch.unique(x, return_inverse=r), on_device(1 << 20, dtype="int64"))
        for r in (False, True)
    )
    assert 8_686_079 in values
    assert 17_074_687 in both


@pytest.mark.parametrize(
    ("asked_for", "peak"),
    [((), 69_206_016), ((True,), 169_869_312), ((False, True), 100_749_312)],
    ids=["values", "places", "counts"],
)
def test_unique_values_come_with_what_was_asked_for(asked_for: tuple[bool, ...], peak: int) -> None:
    seen: list[int] = []

    def run(x: torch.Tensor) -> None:
        before = torch.cuda.memory_allocated()
        torch.unique(x, True, *asked_for)
        seen.append(torch.cuda.max_memory_allocated() - before)

    requests_of(run, on_device(2048, 2048, dtype="int64"))
    assert seen[0] == pytest.approx(peak, rel=0.02)
