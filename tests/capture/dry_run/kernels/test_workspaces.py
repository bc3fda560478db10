"""Which products leave a workspace, by release, stream and thread."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from memscope.capture.dry_run.kernels.workspaces import CUBLAS_LABEL, CUBLASLT_LABEL, Needed, Workspaces
from memscope.gpus import find_gpu
from memscope.trace.categories import Category
from memscope.trace.open import open_trace
from memscope.trace.schema import Action
from tests.capture.programs import dry_run, on_device, owners, requested, requests_of
from tests.oracles import REAL, needs_shared

torch = pytest.importorskip("torch")

_A100, _BIAS = find_gpu("A100-80GB"), (torch.zeros(4),)
_CUBLAS, _LT = (8_519_680, CUBLAS_LABEL), (1 << 20, CUBLASLT_LABEL)


@pytest.mark.parametrize(
    ("release", "first", "again"),
    [
        ("2.11.0+cu130", Needed((_CUBLAS, _LT)), Needed()),
        ("2.13.0", Needed((_CUBLAS,), 1 << 20), Needed((), 1 << 20)),
        ("2.15.0", Needed((), 1 << 20), Needed((), 1 << 20)),
    ],
)
def test_a_release_keeps_workspaces_or_takes_them_anew(release: str, first: Needed, again: Needed) -> None:
    workspaces = Workspaces(_A100, release)
    assert workspaces.needed("relu", (), 0) == Needed()
    assert workspaces.needed("addmm", _BIAS, 0) == first
    assert workspaces.needed("addmm", _BIAS, 0) == again


def test_a_sum_of_products_needs_cublas_alone() -> None:
    assert Workspaces(_A100, "2.11.0").needed("addmm", (torch.zeros(4, 4),), 0) == Needed((_CUBLAS,))


def test_every_stream_with_a_product_has_its_own() -> None:
    with dry_run() as rec:
        x = torch.zeros(64, 64, device="cuda")
        x @ x
        with torch.cuda.stream(torch.cuda.Stream()):
            x @ x
            x @ x
    kept = Workspaces(_A100, torch.__version__).needed("mm", (), 0).kept
    assert sum(requested(rec.trace, Category.WORKSPACE).values()) == 2 * sum(n_bytes for n_bytes, _ in kept)


def _train(layer: torch.nn.Module, x: torch.Tensor) -> None:
    layer(x).sum().backward()


def _recompute(layer: torch.nn.Module, x: torch.Tensor, *, use_reentrant: bool) -> None:
    torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=use_reentrant).sum().backward()


@pytest.mark.parametrize(
    ("program", "cublas", "cublaslt"),
    [
        (lambda layer, x: layer(x), 1, 1),
        (lambda _, x: (x * 2).sum().backward(), 0, 0),
        (_train, 2, 1),
        (lambda layer, x: [_train(layer, x) for _ in range(3)], 2, 1),
        # What is recomputed has its bias in the backward pass; the usual way stops before the last product.
        (partial(_recompute, use_reentrant=False), 2, 1),
        (partial(_recompute, use_reentrant=True), 2, 2),
    ],
    ids=["forward", "backward without products", "training", "three steps", "recomputed", "recomputed in a backward"],
)
def test_backward_passes_have_their_own_where_they_have_products(
    program: Callable[..., Any], cublas: int, cublaslt: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memscope.capture.dry_run._operations.Workspaces", lambda gpu, _: Workspaces(gpu, "2.11.0"))
    with dry_run() as rec:
        program(torch.nn.Linear(64, 64).cuda(), torch.zeros(64, 64, device="cuda", requires_grad=True))
    left = Counter(label for category, label in owners(rec.trace).values() if category == Category.WORKSPACE)
    assert left == Counter({CUBLAS_LABEL: cublas, CUBLASLT_LABEL: cublaslt})


@pytest.mark.parametrize(
    ("layer", "n"),
    [
        (lambda: torch.nn.Conv2d(32, 64, 3), 2),
        (lambda: torch.nn.ConvTranspose2d(32, 16, 4, 2), 2),
        (lambda: torch.nn.Conv2d(32, 64, 3, groups=4), 2),
        (lambda: torch.nn.Conv2d(32, 32, 3, groups=32), 0),
    ],
    ids=["2d", "transposed", "grouped", "by depth"],
)
def test_convolutions_are_products_of_columns(
    layer: Callable[[], torch.nn.Module], n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memscope.capture.dry_run._operations.Workspaces", lambda gpu, _: Workspaces(gpu, "2.11.0"))
    with dry_run() as rec:
        _train(layer().cuda(), torch.zeros(2, 32, 16, 16, device="cuda", requires_grad=True))
    assert sum(label == CUBLAS_LABEL for _, label in owners(rec.trace).values()) == n


@needs_shared
@pytest.mark.parametrize(("name", "n"), [("lm-forward-seq100", 1), ("lm-fwd-bwd-seq100", 2), ("lm-fwd-bwd-seq150", 2)])
def test_a_gpu_had_as_many(name: str, n: int) -> None:
    trace = open_trace(REAL / f"{name}.pickle.gz")
    assert np.count_nonzero(trace.size_bytes[trace.action == Action.ALLOC] == _CUBLAS[0]) == n


def test_matrices_that_overlap_are_copied_for_a_product() -> None:
    x, weight = on_device(300, 512, dtype="bfloat16"), on_device(512, 512, dtype="bfloat16")
    lies = {"as it is": lambda t: t, "across": lambda t: t.t().contiguous().t(), "every second": lambda t: t[::2]}
    for made in lies.values():
        assert len(requests_of(lambda x, w, made=made: torch.mm(made(x), w), x, weight)) <= 2
    asked = requests_of(lambda x, w: torch.mm(x[:, :1].expand(300, 512), w), x, weight)
    assert asked == [307_200, 307_200]
