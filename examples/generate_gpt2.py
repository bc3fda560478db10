"""Generate text with a GPT-2-sized model, random weights: its key/value cache grows by one token at each step.

memscope run --dry-run --gpu L4-24GB generate_gpt2.py --new-tokens 64
"""

import argparse

import torch
from transformers import GPT2Config, GPT2LMHeadModel


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--hidden", type=int, default=768)
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--vocab", type=int, default=50257)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--new-tokens", type=int, default=32)
    return parser.parse_args()


@torch.no_grad()
def main():
    args = parse_arguments()
    config = GPT2Config(
        n_layer=args.layers,
        n_embd=args.hidden,
        n_head=args.heads,
        vocab_size=args.vocab,
        bos_token_id=0,
        eos_token_id=0,
    )
    torch.manual_seed(0)
    model = GPT2LMHeadModel(config).half().eval().to("cuda")
    prompt = torch.randint(1, args.vocab, (args.batch, args.prompt), device="cuda")
    tokens = model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=args.new_tokens,
        do_sample=False,
        pad_token_id=0,
    )
    print(f"{tokens.shape[0]} sequences of {tokens.shape[1]} tokens")


if __name__ == "__main__":
    main()
