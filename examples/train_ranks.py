"""Two ranks that get batches of different lengths: which one runs out of memory first, and why.

    torchrun --nproc-per-node 2 train_ranks.py
    memscope report train_ranks-rank*.memscope

Each rank records into a file of its own. With two GPUs gradients are averaged with NCCL; without a GPU each rank is a
dry run, and only the lengths are exchanged, with gloo.
"""

import sys

import torch
import torch.distributed as dist

import memscope


def make_model():
    layer = torch.nn.TransformerEncoderLayer(512, 8, 2048, batch_first=True, device="cuda")
    return torch.nn.Sequential(torch.nn.Embedding(8192, 512, device="cuda"), layer, torch.nn.Linear(512, 8192).cuda())


def main(path="train_ranks.memscope"):
    has_gpus = torch.cuda.device_count() > 1
    dist.init_process_group("nccl" if has_gpus else "gloo")
    rank, n_ranks = dist.get_rank(), dist.get_world_size()
    if has_gpus:
        torch.cuda.set_device(rank)
    lengths = [None] * n_ranks
    dist.all_gather_object(lengths, 256 * (rank + 1))  # the second rank's sequences are twice as long
    where = {} if torch.cuda.is_available() else {"backend": "dry-run", "gpu": "RTX4090-24GB"}
    with memscope.record(path, overwrite=True, **where) as rec:
        model = make_model()
        optimizer = torch.optim.AdamW(model.parameters())
        for _ in range(3):
            tokens = torch.randint(0, 8192, (8, lengths[rank]), device="cuda")
            logits = model(tokens)
            torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens.flatten()).backward()
            for parameter in model.parameters() if has_gpus else ():
                dist.all_reduce(parameter.grad, dist.ReduceOp.AVG)
            optimizer.step()
            optimizer.zero_grad()
            rec.step()
    print(f"rank {rank} of {n_ranks}, lengths {lengths}: wrote {rec.path.name}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
