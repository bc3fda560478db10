import pytest
import torch

from memscope.analysis import Analysis
from memscope.errors import UsageError
from memscope.gpus import find_gpu
from memscope.planning._models import dry_run
from memscope.planning.plan import OPTIMIZERS
from tests.planning.models import LLAMA, plan


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"hidden_size": 4}, "model_type is missing"),
        ({"model_type": "no-such"}, "model_type 'no-such' is not one that transformers can make"),
        ({**LLAMA, "num_attention_heads": 3}, "transformers can"),
        ({**LLAMA, "quantization_config": {"bits": 4}}, "its weights are quantised"),
        ({"model_type": "vit"}, "transformers cannot make a language model of it"),
    ],
)
def test_what_is_no_language_model_is_refused_in_one_line(values, reason):
    with pytest.raises(UsageError, match=reason) as error:
        dry_run(plan(values), find_gpu("A100-80GB"))
    assert "\n" not in str(error.value)
    assert torch.get_default_dtype() == torch.float32


def test_the_plans_type_goes_before_the_configurations():
    """A published file names the type that its weights were saved in."""
    found = [
        int(
            Analysis(dry_run(plan({**LLAMA, **named}, n_tokens=16), find_gpu("A100-80GB")))
            .devices[0]
            .peak()
            .allocated_bytes
        )
        for named in ({}, {"torch_dtype": "bfloat16"}, {"dtype": "float16", "architectures": ["LlamaForCausalLM"]})
    ]
    assert len(set(found)) == 1


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_no_value_that_is_read_is_said_where_no_code_is_the_users(capfd, optimizer):
    trace = dry_run(plan(n_tokens=16, optimizer=optimizer), find_gpu("A100-80GB"))
    out = capfd.readouterr()
    assert (out.out, out.err) == ("", "")
    assert any("reads of values" in note for note in trace.metadata.notes) is (optimizer == "adafactor")


def test_a_type_that_the_model_does_not_run_in_is_said_in_one_line(capfd):
    sizes = {"vocab_size": 256, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "num_local_experts": 4, "num_experts_per_tok": 2}
    values = {"model_type": "mixtral", **sizes, **heads}
    with pytest.raises(UsageError, match=r"in fp32 the model's code does not come to its end .*BF16") as refused:
        dry_run(plan(values), find_gpu("A100-80GB"))
    assert "\n" not in str(refused.value)
    assert capfd.readouterr().err == ""
