"""Recurrent networks without cuDNN, as torch 2.11's CUDA build runs and records them on an emulated A100."""

from __future__ import annotations

from typing import Any

import pytest

from tests.capture.programs import dry_run, requests_of

torch = pytest.importorskip("torch")
nn = torch.nn


def _forward(kind: str, *sizes: int, **given: Any) -> list[int]:
    network, x = getattr(nn, kind), (20, 16, sizes[0])
    asked = requests_of(
        lambda m, x: m(x), lambda: network(*sizes, device="cuda", **given), lambda: torch.empty(x, device="cuda")
    )
    return [n_bytes for n_bytes in asked if n_bytes != 1 << 20]  # but for what a release gives cuBLASLt each time


def test_an_lstm_keeps_its_gates_at_every_step() -> None:
    asked = _forward("LSTM", 64, 128, 1)
    assert asked[:7] == [8_192, 8_192, 32_768, 32_768, 32_768, 8_192, 8_192]
    assert asked.count(32_768) == 20 * 3


def test_a_gru_keeps_five_parts_a_step() -> None:
    assert _forward("GRU", 64, 128, 1)[:5] == [8_192, 24_576, 24_576, 40_960, 8_192]


def test_a_plain_network_keeps_its_sums() -> None:
    assert _forward("RNN", 64, 128, 1)[:4] == [8_192, 8_192, 8_192, 8_192]


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize(
    "given",
    [
        {},
        {"bidirectional": True, "num_layers": 2},
        {"bias": False},
        {"batch_first": True, "num_layers": 2, "dropout": 0.2},
    ],
)
def test_networks_have_the_shapes_and_gradients_of_the_hosts(kind: str, given: dict[str, Any]) -> None:
    x = torch.randn(7, 5, 12)
    host = getattr(nn, kind)(12, 8, **given)
    output, state = host(x)
    with dry_run():
        network = getattr(nn, kind)(12, 8, **given).cuda()
        made, hidden = network(torch.empty(7, 5, 12, device="cuda"))
        made.sum().backward()
        assert made.shape == output.shape
        assert [h.shape for h in _states(hidden)] == [h.shape for h in _states(state)]
        assert all(p.grad is not None and p.grad.shape == p.shape for p in network.parameters())


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_packed_sequences_run_both_ways(kind: str) -> None:
    with dry_run():
        network = getattr(nn, kind)(12, 8, 2, bidirectional=True).cuda()
        packed = nn.utils.rnn.pack_padded_sequence(torch.empty(6, 3, 12, device="cuda"), torch.tensor([6, 4, 1]))
        output, hidden = network(packed)
        output.data.sum().backward()
        assert output.data.shape == (11, 16)
        assert nn.utils.rnn.pad_packed_sequence(output)[0].shape == (6, 3, 16)
        assert [h.shape for h in _states(hidden)] == [(4, 3, 8)] * (2 if kind == "LSTM" else 1)


def test_a_projected_lstm_and_cells_run() -> None:
    with dry_run():
        x = torch.empty(7, 5, 12, device="cuda")
        output, (h, c) = nn.LSTM(12, 8, proj_size=3).cuda()(x)
        assert (output.shape, h.shape, c.shape) == ((7, 5, 3), (1, 5, 3), (1, 5, 8))
        h, c = nn.LSTMCell(12, 8).cuda()(x[0])
        assert nn.GRUCell(8, 8).cuda()(h).shape == c.shape == (5, 8)


def _states(hidden: Any) -> tuple[Any, ...]:
    return hidden if isinstance(hidden, tuple) else (hidden,)


def test_the_gradient_of_each_packed_step_is_one_of_all_the_input() -> None:
    network = torch.nn.LSTM(64, 64)

    def run() -> None:
        inputs = torch.empty(6, 32, 64, device="cuda", requires_grad=True)
        packed = torch.nn.utils.rnn.pack_padded_sequence(inputs, torch.full((32,), 6))
        network.cuda()(packed)[0].data.sum().backward()

    # The sequences and their copy, all outputs, and the gradients of six steps and of what was packed.
    assert requests_of(run).count(6 * 32 * 64 * 4) == 3 + 6 + 1
