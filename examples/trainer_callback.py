"""Record a Hugging Face Trainer's run: a callback starts the recording, names the steps, and ends it.

    python trainer_callback.py
    memscope report trainer.memscope

Needs a GPU, and accelerate; the callback goes into any Trainer.
"""

import sys
import tempfile

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

import memscope


class MemscopeCallback(TrainerCallback):
    """Records from the first step to the end of training, with the model's and the optimizer's names."""

    def __init__(self, path):
        self.path = path
        self.recorder = None

    def on_train_begin(self, args, state, control, model=None, optimizer=None, **kwargs):
        self.recorder = memscope.record(self.path, model=model, optimizer=optimizer, overwrite=True).start()

    def on_step_end(self, args, state, control, **kwargs):
        self.recorder.step(str(state.global_step))

    def on_train_end(self, args, state, control, **kwargs):
        self.recorder.stop()


class RandomText(torch.utils.data.Dataset):
    def __len__(self):
        return 64

    def __getitem__(self, index):
        tokens = torch.randint(0, 1000, (128,), generator=torch.Generator().manual_seed(index))
        return {"input_ids": tokens, "labels": tokens}


def main(path="trainer.memscope", steps="3"):
    model = GPT2LMHeadModel(
        GPT2Config(n_layer=4, n_embd=256, n_head=8, vocab_size=1000, bos_token_id=0, eos_token_id=0)
    )
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, max_steps=int(steps), per_device_train_batch_size=8, report_to=[], save_strategy="no"
        )
        Trainer(model, arguments, train_dataset=RandomText(), callbacks=[MemscopeCallback(path)]).train()


if __name__ == "__main__":
    main(*sys.argv[1:])
