"""Products in forward and backward passes: what is left allocated after each."""

import json

import torch
from torch.utils.checkpoint import checkpoint

x = torch.zeros(64, 64, device="cuda", requires_grad=True)
layer = torch.nn.Linear(64, 64).cuda()
acts = {
    "a product": lambda: (x @ x).sum(),
    "a backward pass without": lambda: (x * 2).sum().backward(),
    "a backward pass": lambda: layer(x).sum().backward(),
    "another": lambda: layer(x).sum().backward(),
    "recomputed": lambda: checkpoint(layer, x, use_reentrant=False).sum().backward(),
    "recomputed within": lambda: checkpoint(layer, x, use_reentrant=True).sum().backward(),
}
left = {}
for name, act in acts.items():
    act()
    left[name] = torch.cuda.memory_allocated()
with torch.cuda.stream(torch.cuda.Stream()):
    layer(x).sum().backward()
left["on a side stream"] = torch.cuda.memory_allocated()
print(json.dumps(left))
