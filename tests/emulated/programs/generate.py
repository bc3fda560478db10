"""Generate with a small GPT-2: greedy, sampled, and with an end-of-sequence token."""

import torch
from evidence import leave
from transformers import GPT2Config, GPT2LMHeadModel

shape = {"n_layer": 2, "n_embd": 64, "n_head": 2, "vocab_size": 512, "bos_token_id": 1, "eos_token_id": None}
with torch.device("cuda"):
    model = GPT2LMHeadModel(GPT2Config(**shape)).eval()
prompt = torch.randint(0, 512, (2, 8), device="cuda")
mask = torch.ones_like(prompt)
lengths = []
for options in ({}, {"do_sample": True}, {"eos_token_id": 511}):
    output = model.generate(prompt, attention_mask=mask, max_new_tokens=21, pad_token_id=0, **options)
    lengths.append(output.shape[1] - prompt.shape[1])
leave(lengths=lengths)
