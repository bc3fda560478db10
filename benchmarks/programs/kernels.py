"""Small programs whose peaks hang on what kernels take beside their tensors, and on which kernel is chosen.

``python kernels.py NAME [ARGUMENTS]``. None needs a value: a dry run and an emulated device follow the same path.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable

import torch
from torch import nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

DEVICE = "cuda"
BACKENDS = {
    "math": [SDPBackend.MATH],
    "efficient": [SDPBackend.EFFICIENT_ATTENTION],
    "flash": [SDPBackend.FLASH_ATTENTION],
    "any": [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH],
}


def _train(
    module: nn.Module, make_input: Callable[[int], torch.Tensor], steps: int = 3, parameters: Iterable | None = None
) -> None:
    """A few steps of SGD on the mean square of the output, whatever the module is."""
    optimizer = torch.optim.SGD(module.parameters() if parameters is None else parameters, lr=0.1)
    for step in range(steps):
        output = module(make_input(step))
        while isinstance(output, tuple):
            output = output[0]
        output.float().pow(2).mean().backward()
        optimizer.step()
        optimizer.zero_grad()


def attention(kind: str, mask: str, head: str, dtype: str, dropout: str = "0.1") -> None:
    """One projection and one attention."""
    n_head, made = int(head), getattr(torch, dtype)
    model = nn.Linear(16 * n_head, 48 * n_head, device=DEVICE, dtype=made)

    def attend(x: torch.Tensor) -> torch.Tensor:
        query, key, value = (part.view(2, 700, 16, n_head).transpose(1, 2) for part in model(x).chunk(3, -1))
        given = None
        if mask == "bool":
            given = torch.ones(2, 1, 700, 700, dtype=torch.bool, device=DEVICE).tril()
        elif mask == "float":
            given = torch.zeros(1, 1, 700, 700, dtype=made, device=DEVICE)
        with sdpa_kernel(BACKENDS[kind]):
            return functional.scaled_dot_product_attention(
                query, key, value, given, dropout_p=float(dropout), is_causal=mask == "causal"
            )

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        attend(torch.randn(2, 700, 16 * n_head, device=DEVICE, dtype=made)).float().pow(2).mean().backward()
        optimizer.step()
        optimizer.zero_grad()


def grouped_attention() -> None:
    """Fewer heads of keys than of queries, expanded by the attention itself."""
    query, key, value = (
        torch.randn(2, n, 600, 64, device=DEVICE, dtype=torch.bfloat16, requires_grad=True) for n in (32, 8, 8)
    )
    functional.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True).sum().backward()


def multihead(dtype: str) -> None:
    """``nn.MultiheadAttention`` with its weights, and without."""
    layer = nn.MultiheadAttention(512, 8, batch_first=True, device=DEVICE, dtype=getattr(torch, dtype))
    for needs_weights in (True, False):
        x = torch.randn(8, 300, 512, device=DEVICE, dtype=getattr(torch, dtype))
        layer(x, x, x, need_weights=needs_weights)[0].sum().backward()


def transformer(mode: str) -> None:
    """``nn.TransformerEncoder``, trained or evaluated."""
    layer = nn.TransformerEncoderLayer(512, 8, 2048, batch_first=True, device=DEVICE)
    model = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
    if mode == "train":
        _train(model, lambda _: torch.randn(8, 256, 512, device=DEVICE))
    else:
        model.eval()
        with torch.no_grad():
            model(torch.randn(8, 256, 512, device=DEVICE))


def recurrent(kind: str, layers: str = "2", way: str = "one", dtype: str = "float32") -> None:
    """A recurrent network over 200 steps."""
    model = getattr(nn, kind)(
        256, 512, int(layers), bidirectional=way == "both", device=DEVICE, dtype=getattr(torch, dtype)
    )
    _train(model, lambda _: torch.randn(200, 32, 256, device=DEVICE, dtype=getattr(torch, dtype)))


def packed_recurrent() -> None:
    """An LSTM over sequences of several lengths, packed."""
    model = nn.LSTM(128, 256, batch_first=True, dropout=0.1, num_layers=2).to(DEVICE)
    lengths = torch.arange(60, 28, -1)
    x = torch.randn(32, 60, 128, device=DEVICE)
    packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
    output, _ = nn.utils.rnn.pad_packed_sequence(model(packed)[0], batch_first=True)
    output.pow(2).mean().backward()


def cells() -> None:
    """Cells in a loop of the program's own."""
    lstm, gru = nn.LSTMCell(256, 512).to(DEVICE), nn.GRUCell(512, 512).to(DEVICE)
    state, hidden = (torch.zeros(64, 512, device=DEVICE), torch.zeros(64, 512, device=DEVICE)), None
    outputs = []
    for _ in range(40):
        state = lstm(torch.randn(64, 256, device=DEVICE), state)
        hidden = gru(state[0], hidden)
        outputs.append(hidden)
    torch.stack(outputs).pow(2).mean().backward()


def embedding(kind: str) -> None:
    """Embeddings of every kind, and their gradients."""
    n_rows, width = 50_000, 512
    if kind == "padded":
        model = nn.Embedding(n_rows, width, padding_idx=0, device=DEVICE)
    elif kind == "scaled":
        model = nn.Embedding(n_rows, width, scale_grad_by_freq=True, device=DEVICE)
    elif kind == "sparse":
        model = nn.Embedding(n_rows, width, sparse=True, device=DEVICE)
    elif kind == "half":
        model = nn.Embedding(n_rows, width, device=DEVICE, dtype=torch.bfloat16)
    elif kind in ("sum", "mean", "max"):
        model = nn.EmbeddingBag(n_rows, width, mode=kind, device=DEVICE)
    else:
        model = nn.Embedding(n_rows, width, device=DEVICE)
    _train(model, lambda step: torch.randint(0, n_rows, (16 + step, 600)).to(DEVICE))


def sorting(rows: str, columns: str) -> None:
    """Sorting and what is made of it."""
    x = torch.randn(int(rows), int(columns), device=DEVICE, requires_grad=True)
    for found in (x.sort(-1).values, x.topk(40, -1).values, x.cumsum(-1), x.median(-1).values, x.logcumsumexp(-1)):
        found.sum().backward()
    with torch.no_grad():
        x.argsort(0, descending=True)
        torch.unique(x.long())
        torch.randperm(1_000_000, device=DEVICE)


def sampling() -> None:
    """Tokens drawn with temperature, the most likely 50 and nine tenths of the mass."""
    logits = torch.randn(64, 128_256, device=DEVICE)
    for _ in range(4):
        scaled = logits / 0.7
        least = scaled.topk(50).values[:, -1:]
        scaled = scaled.masked_fill(scaled < least, -float("inf"))
        ordered, places = scaled.sort(descending=False)
        removed = ordered.softmax(-1).cumsum(-1) <= 0.1
        scaled = scaled.masked_fill(removed.scatter(1, places, removed), -float("inf"))
        torch.multinomial(scaled.softmax(-1), 1)


def reductions(dtype: str) -> None:
    """Sums over rows, columns and all, and their like."""
    x = torch.randn(6000, 3000, device=DEVICE, dtype=getattr(torch, dtype))
    for reduced in (x.sum(0), x.sum(1), x.mean(), x.amax(0), x.var(0), x.norm(), x.argmax(0), x.max(0), (x > 0).sum()):
        del reduced


def perceptron(dtype: str, size: str = "2048") -> None:
    """Layers with biases, whose gradients are sums."""
    width = int(size)
    model = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)).to(
        DEVICE, getattr(torch, dtype)
    )
    _train(model, lambda _: torch.randn(3000, width, device=DEVICE, dtype=getattr(torch, dtype)))


def norms(dtype: str) -> None:
    """Normalization of every kind."""
    made = {"device": DEVICE, "dtype": getattr(torch, dtype)}
    model = nn.Sequential(
        nn.BatchNorm2d(64, **made), nn.GroupNorm(8, 64, **made), nn.InstanceNorm2d(64, **made), nn.LayerNorm(48, **made)
    )
    _train(model, lambda _: torch.randn(16, 64, 48, 48, **made))


def convolutions(kind: str) -> None:
    """Convolutions of every kind."""
    layers = {
        "2d": (nn.Conv2d(32, 64, 3, padding=1), (16, 32, 96, 96)),
        "1d": (nn.Conv1d(64, 128, 5, padding=2), (16, 64, 4000)),
        "3d": (nn.Conv3d(8, 16, 3, padding=1), (2, 8, 24, 48, 48)),
        "transposed": (nn.ConvTranspose2d(64, 32, 4, 2, 1), (8, 64, 48, 48)),
        "depthwise": (nn.Conv2d(64, 64, 3, padding=1, groups=64), (16, 64, 96, 96)),
        "grouped": (nn.Conv2d(64, 64, 3, padding=1, groups=4), (16, 64, 96, 96)),
        "grouped-twice": (nn.Sequential(*(nn.Conv2d(64, 64, 3, 1, 1, 1, 4) for _ in "ab")), (16, 64, 96, 96)),
        "dilated": (nn.Conv2d(16, 16, 3, padding=2, dilation=2), (8, 16, 96, 96)),
    }
    layer, shape = layers[kind]
    _train(layer.to(DEVICE), lambda _: torch.randn(shape, device=DEVICE))


def picking() -> None:
    """Elements picked by index, and their gradients."""
    x = torch.randn(2048, 2048, device=DEVICE, requires_grad=True)
    rows = torch.zeros(64, dtype=torch.long, device=DEVICE)
    places = torch.zeros(2048, 8, dtype=torch.long, device=DEVICE)
    for picked in (
        *(x.gather(1, places), x.index_select(0, rows), x[rows], x.max(-1).values, x.topk(8).values),
        *(x.sort(-1).values, x.median(-1).values, x.prod(-1), x.cumprod(-1), x[:, 3], x.masked_fill(x > 0, 0.0)),
        *(torch.scatter(x, 1, places, 1.0), x.index_add(0, rows, x[:64]), x.index_put((rows,), x[:64])),
    ):
        picked.sum().backward()


def losses() -> None:
    """Losses of every kind."""
    x = torch.randn(4096, 8192, device=DEVICE, requires_grad=True)
    target, soft = torch.zeros(4096, dtype=torch.long, device=DEVICE), torch.zeros(4096, 8192, device=DEVICE)
    for loss in (
        functional.cross_entropy(x, target),
        functional.cross_entropy(x, target, label_smoothing=0.1),
        functional.cross_entropy(x, soft),
        functional.binary_cross_entropy_with_logits(x, soft),
        functional.kl_div(x.log_softmax(-1), soft, reduction="batchmean"),
        functional.mse_loss(x, soft),
        functional.smooth_l1_loss(x, soft),
        functional.nll_loss(x.log_softmax(-1), target, torch.ones(8192, device=DEVICE)),
        functional.multi_margin_loss(x, target),
    ):
        loss.backward()


def experts() -> None:
    """A router, and experts that take the tokens of their share."""
    router, experts = nn.Linear(1024, 8).to(DEVICE), nn.Parameter(torch.randn(8, 1024, 2048, device=DEVICE))
    x = torch.randn(4096, 1024, device=DEVICE, requires_grad=True)
    weights, chosen = router(x).softmax(-1).topk(2, -1)
    order = chosen.flatten().argsort(stable=True)
    picked = x[order // 2].view(8, 1024, 1024)
    mixed = torch.bmm(picked, experts).view(8192, 2048) * weights.flatten()[order][:, None]
    torch.zeros(4096, 2048, device=DEVICE).index_add(0, order // 2, mixed).sum().backward()


def images() -> None:
    """Pooling, resizing and sampling of images."""
    x = torch.randn(8, 32, 128, 128, device=DEVICE, requires_grad=True)
    grid = torch.zeros(8, 64, 64, 2, device=DEVICE)
    for made in (
        *(functional.max_pool2d(x, 2), functional.avg_pool2d(x, 2), functional.adaptive_avg_pool2d(x, 7)),
        *(functional.interpolate(x, scale_factor=2.0, mode=mode) for mode in ("nearest", "bilinear", "bicubic")),
        *(functional.grid_sample(x, grid, align_corners=False), functional.pixel_shuffle(x, 2)),
        *(functional.unfold(x, 3), functional.adaptive_max_pool2d(x, 5), functional.pad(x, (1, 1, 1, 1), "reflect")),
    ):
        made.sum().backward()


def optimizers(name: str) -> None:
    """An optimizer's steps on layers of several sizes."""
    model = nn.Sequential(*(nn.Linear(1024, 1024) for _ in range(6))).to(DEVICE)
    optimizer = getattr(torch.optim, name)(model.parameters())
    for _ in range(3):
        model(torch.randn(256, 1024, device=DEVICE)).pow(2).mean().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()


def autocast(dtype: str) -> None:
    """Mixed precision with a scaler."""
    model = nn.Sequential(nn.Linear(1024, 4096), nn.LayerNorm(4096), nn.GELU(), nn.Linear(4096, 32_000)).to(DEVICE)
    optimizer, scaler = torch.optim.AdamW(model.parameters()), torch.amp.GradScaler("cuda")
    for _ in range(3):
        with torch.autocast("cuda", getattr(torch, dtype)):
            logits = model(torch.randn(1024, 1024, device=DEVICE))
            loss = functional.cross_entropy(logits, torch.zeros(1024, dtype=torch.long, device=DEVICE))
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()


def streams() -> None:
    """Batches that a side stream fetches, and products on both."""
    side, weight = torch.cuda.Stream(), torch.randn(2048, 2048, device=DEVICE)
    for i in range(6):
        with torch.cuda.stream(side):
            batch = torch.randn(512 + 256 * (i % 3), 2048, device=DEVICE) @ weight
        torch.cuda.current_stream().wait_stream(side)
        batch.record_stream(torch.cuda.current_stream())
        (batch @ weight).relu_()


def two_devices() -> None:
    """A model whose halves are on two devices."""
    first, second = nn.Linear(2048, 2048).to("cuda:0"), nn.Linear(2048, 2048).to("cuda:1")
    optimizer = torch.optim.AdamW([*first.parameters(), *second.parameters()])
    for _ in range(3):
        second(first(torch.randn(512, 2048, device="cuda:0")).to("cuda:1")).pow(2).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.cuda.device(1):
        torch.zeros(1 << 20, device="cuda")


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
