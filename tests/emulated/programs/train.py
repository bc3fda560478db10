"""Train a small Llama for some steps: AdamW, clipped gradients, lengths that vary, bfloat16 by autocast."""

import torch
from evidence import leave
from transformers import LlamaConfig, LlamaForCausalLM

torch.manual_seed(0)
shape = {"hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 3, "num_attention_heads": 4}
config = LlamaConfig(num_key_value_heads=2, vocab_size=2048, use_cache=False, **shape)
with torch.device("cuda"):
    model = LlamaForCausalLM(config)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
losses = []
for length in (64, 200, 96, 160):
    tokens = torch.randint(0, 2048, (4, length)).cuda()
    with torch.autocast("cuda", dtype=torch.bfloat16):
        loss = model(input_ids=tokens, labels=tokens).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    losses.append(loss.item())
print("trained")
leave(losses=losses)
