"""Train a Llama-shaped model for a few steps, as on any GPU: random weights, random tokens, AdamW in bfloat16.

The default is the shape of Llama-3-8B. On an 80 GB GPU it just fits, and it runs without one:

    memscope run --dry-run --gpu H100-80GB train_llama.py
    memscope run --dry-run --gpu RTX4090-24GB train_llama.py --layers 4
"""

import argparse

import torch
from transformers import LlamaConfig, LlamaForCausalLM


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=4096)
    parser.add_argument("--intermediate", type=int, default=14336)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--heads", type=int, default=32)
    parser.add_argument("--kv-heads", type=int, default=8)
    parser.add_argument("--vocab", type=int, default=128256)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--seq", type=int, default=2048)
    parser.add_argument("--steps", type=int, default=2)
    return parser.parse_args()


def main():
    args = parse_arguments()
    config = LlamaConfig(
        hidden_size=args.hidden,
        intermediate_size=args.intermediate,
        num_hidden_layers=args.layers,
        num_attention_heads=args.heads,
        num_key_value_heads=args.kv_heads,
        vocab_size=args.vocab,
        use_cache=False,
    )
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model = LlamaForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{n_parameters:,} parameters in bfloat16: {2 * n_parameters:,} bytes of weights")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    for step in range(args.steps):
        tokens = torch.randint(0, args.vocab, (args.batch, args.seq)).cuda()
        loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        peak = torch.cuda.max_memory_allocated() / 2**30
        print(f"step {step}: loss {loss.item():.3f}, peak {peak:.2f} GiB")


if __name__ == "__main__":
    main()
