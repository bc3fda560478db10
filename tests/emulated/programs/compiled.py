"""Train layers that keep a lot for their backward pass, eagerly or compiled, and launch a kernel of our own."""

import sys

import torch
import triton
import triton.language as tl
from evidence import leave
from torch import nn


@triton.jit
def doubled(given, made, size, block: tl.constexpr):
    place = tl.program_id(0) * block + tl.arange(0, block)
    tl.store(made + place, 2 * tl.load(given + place, mask=place < size), mask=place < size)


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        up = self.up(self.norm(x))
        return x + self.down(up.sigmoid() * up.tanh() * up.exp())


model = nn.Sequential(*(Block(128) for _ in range(3))).cuda()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
run = torch.compile(model) if "compiled" in sys.argv else model
for _ in range(3):
    loss = run(torch.randn(4096, 128, device="cuda")).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()

given = torch.ones(10_000, device="cuda")
made = torch.empty_like(given)
doubled[(triton.cdiv(10_000, 1024),)](given, made, 10_000, block=1024)
sys.argv[2:] = []  # what is left of them would ask for a history
leave(weights=sum(p.numel() * p.element_size() for p in model.parameters()))
