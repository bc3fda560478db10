"""Run out of memory, catch it, go on with half the batch: the first failure's trace is kept, and the error says where.

    python catch_oom.py
    memscope report catch_oom-oom-*.memscope

Without a GPU it is a dry run on a simulated one of 24 GB.
"""

import sys

import torch

import memscope

WHERE = {} if torch.cuda.is_available() else {"backend": "dry-run", "gpu": "RTX4090-24GB"}


def train_step(model, optimizer, batch):
    samples = torch.randn(batch, 4096, device="cuda")
    model(samples).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def main(path="catch_oom.memscope"):
    batch = 1 << 20
    with memscope.record(path, overwrite=True, **WHERE) as rec:
        model = torch.nn.Sequential(torch.nn.Linear(4096, 4096), torch.nn.GELU(), torch.nn.Linear(4096, 1)).to("cuda")
        optimizer = torch.optim.AdamW(model.parameters())
        for _ in range(8):
            try:
                train_step(model, optimizer, batch)
            except torch.OutOfMemoryError as error:
                print(f"batch {batch}: out of memory", *getattr(error, "__notes__", ()), sep="\n")
                optimizer.zero_grad()
                batch //= 2
            else:
                print(f"batch {batch}: done")
                rec.step()


if __name__ == "__main__":
    main(*sys.argv[1:])
