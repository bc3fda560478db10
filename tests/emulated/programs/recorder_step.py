"""One model trained with AdamW or asked to generate: everything that it holds has an owner."""

import sys

import torch
from evidence import leave
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

_, _, family, task = sys.argv
if family == "llama":
    shape = {"hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 4, "num_attention_heads": 8}
    config, kind = LlamaConfig(num_key_value_heads=4, vocab_size=4096, **shape), LlamaForCausalLM
else:
    shape = {"n_layer": 4, "n_embd": 256, "n_head": 8, "vocab_size": 4096}
    config, kind = GPT2Config(bos_token_id=1, eos_token_id=None, **shape), GPT2LMHeadModel
with torch.device("cuda"):
    model = kind(config)
if task == "train":
    optimizer = torch.optim.AdamW(model.parameters())
    for _ in range(3):
        tokens = torch.randint(0, 4096, (4, 128)).cuda()
        model(input_ids=tokens, labels=tokens, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
else:
    prompt = torch.randint(0, 4096, (4, 64), device="cuda")
    model.eval().generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=12, pad_token_id=0)
leave()
