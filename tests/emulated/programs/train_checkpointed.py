"""Train with gradient checkpointing: the forward pass is run again inside the backward pass."""

import torch
from evidence import leave
from transformers import LlamaConfig, LlamaForCausalLM

torch.manual_seed(0)
shape = {"hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 3, "num_attention_heads": 4}
config = LlamaConfig(num_key_value_heads=2, vocab_size=2048, use_cache=False, **shape)
with torch.device("cuda"):
    model = LlamaForCausalLM(config)
model.gradient_checkpointing_enable()
model.train()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
for length in (64, 200, 96):
    tokens = torch.randint(0, 2048, (4, length)).cuda()
    model(input_ids=tokens, labels=tokens).loss.backward()
    optimizer.step()
    optimizer.zero_grad()
leave()
