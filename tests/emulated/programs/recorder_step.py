"""One model trained with AdamW or asked to generate: everything that it holds has an owner."""

import sys
from itertools import chain

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
    for step in range(3):
        tokens = torch.randint(0, 4096, (4, 128)).cuda()
        model(input_ids=tokens, labels=tokens, use_cache=False).loss.backward()
        optimizer.step()
        if step == 2:
            break  # its gradients are there at the end
        optimizer.zero_grad()
    cache = []
else:
    prompt = torch.randint(0, 4096, (4, 64), device="cuda")
    mask = torch.ones_like(prompt)
    ended = model.eval().generate(
        prompt, attention_mask=mask, max_new_tokens=12, pad_token_id=0, return_dict_in_generate=True
    )
    optimizer = None
    cache = [tensor for layer in ended.past_key_values.layers for tensor in (layer.keys, layer.values)]


def held_bytes(tensors):
    """Bytes of the memory behind tensors on the device, each once."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors if t.is_cuda}
    return sum(storages.values())


persistent = [buffer for name, buffer in model.named_buffers() if name in model.state_dict()]
states = [] if optimizer is None else [v for state in optimizer.state.values() for v in state.values()]
leave(
    weights=held_bytes(chain(model.parameters(), persistent)),
    gradients=held_bytes(p.grad for p in model.parameters() if p.grad is not None),
    optimizer_state=held_bytes(states),
    kv_cache=held_bytes(cache),
)
