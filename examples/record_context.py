"""Record part of a program from inside: steps, phases and tags.

    python record_context.py
    memscope report record_context.memscope

Without a GPU it is a dry run on a simulated one of 24 GB.
"""

import sys

import torch

import memscope

WHERE = {} if torch.cuda.is_available() else {"backend": "dry-run", "gpu": "RTX4090-24GB"}


def main(path="record_context.memscope"):
    with memscope.record(path, overwrite=True, **WHERE) as rec:
        model = torch.nn.Sequential(torch.nn.Linear(512, 2048), torch.nn.GELU(), torch.nn.Linear(2048, 512)).to("cuda")
        optimizer = torch.optim.AdamW(model.parameters())
        with memscope.tag("replay buffer"):
            buffer = torch.zeros(1024, 512, device="cuda")
        for _ in range(3):
            with rec.phase("load"):
                batch = buffer[:64] + torch.randn(64, 512, device="cuda")
            loss = model(batch).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            rec.step()
    print(f"{rec.trace.n_events} events, {len(rec.trace.owners)} allocations with a known owner")


if __name__ == "__main__":
    main(*sys.argv[1:])
