"""What a program that reads its own masks and positions back is told, one line each."""

import io

import torch

mask = torch.ones(8, 8192, dtype=torch.long, device="cuda")
print("mask", bool((mask == 1).all()), mask.all().item())
positions = torch.arange(40_000, device="cuda")[None].expand(4, -1)
steps = torch.diff(positions, prepend=positions[:, :1] - 1, dim=-1)
print("packed", ((steps != 1).cumsum(-1)[:, -1] == 0).logical_not().any().item())
batch = torch.arange(12).reshape(3, 4).to("cuda")
print("batch", batch.sum().item(), batch[1].cpu().tolist())
print("loss", bool(torch.isfinite(torch.randn(4, device="cuda").mean())))
counts = torch.ones(3, device="cuda", dtype=torch.long)
tail = counts[1:]
tail.mul_(2)
print("written", counts.tolist())
counts[0] = torch.randint(5, 9, (1,), device="cuda")[0]
print("forgotten", tail.tolist())
saved = io.BytesIO()
torch.save(torch.nn.BatchNorm1d(2).cuda().state_dict() | {"batch": batch}, saved)
print("loaded", sorted(torch.load(io.BytesIO(saved.getvalue()), map_location="cuda")), batch[1].tolist())
