"""Checkpoints that a dry run writes and reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from memscope.capture.recorder import Recorder  # noqa: E402


def dry_run() -> Recorder:
    return Recorder(backend="dry-run", gpu="A100-40GB", conf="")


def trained() -> tuple[Any, Any]:
    model = torch.nn.Linear(1024, 2048).cuda()
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(4, 1024, device="cuda")).sum().backward()
    optimizer.step()
    return model, optimizer


def test_a_checkpoint_holds_names_shapes_and_types_and_takes_no_room(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "checkpoint.pt"
    with dry_run():
        model, optimizer = trained()
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}, path)
        torch.save(model, tmp_path / "model.pt")
        said = capsys.readouterr().err
    assert path.stat().st_size < 20_000
    assert said.count("(said once)") == 1
    assert "test_saving.py" in said
    loaded = torch.load(path, map_location="cpu")
    assert {name: (tuple(t.shape), t.dtype) for name, t in loaded["model"].items()} == {
        "weight": ((2048, 1024), torch.float32),
        "bias": ((2048,), torch.float32),
    }
    assert loaded["epoch"] == 3
    assert loaded["optimizer"]["state"][0]["exp_avg"].shape == (2048, 1024)


def test_what_is_loaded_again_lies_where_it_was_saved_from(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    with dry_run():
        model, _ = trained()
        torch.save({**model.state_dict(), "on the host": torch.arange(3)}, path)
        before = torch.cuda.memory_allocated()
        loaded = torch.load(path)
        assert loaded["weight"].device.type == "cuda"
        assert torch.cuda.memory_allocated() - before == 4 * (1024 * 2048 + 2048)
        assert loaded["on the host"].tolist() == [0, 1, 2]
        assert torch.load(path, map_location="cpu")["weight"].device.type == "cpu"
        model.load_state_dict({name: loaded[name] for name in ("weight", "bias")})


def test_a_parameter_is_loaded_as_one(tmp_path: Path) -> None:
    path = tmp_path / "parameter.pt"
    with dry_run():
        torch.save(torch.nn.Parameter(torch.ones(8, 8, device="cuda")), path)
    loaded = torch.load(path, weights_only=False, map_location="cpu")
    assert isinstance(loaded, torch.nn.Parameter)
    assert loaded.requires_grad


def test_addresses_are_those_of_the_simulated_device() -> None:
    with dry_run():
        tensor = torch.empty(64, 64, device="cuda")
        other = torch.empty(64, 64, device="cuda")
        assert tensor.data_ptr() == tensor.untyped_storage().data_ptr() > 0
        assert tensor[1].data_ptr() == tensor.data_ptr() + 64 * 4
        assert other.data_ptr() != tensor.data_ptr()
        host = torch.ones(3)
        assert host.data_ptr() == host.untyped_storage().data_ptr() > 0


def test_a_safetensors_file_is_a_header_and_a_hole(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    path, real = tmp_path / "weights.safetensors", tmp_path / "real.safetensors"
    with dry_run():
        model, _ = trained()
        safetensors.save_file(model.state_dict(), path, {"format": "pt"})
        safetensors.save_file({"on the host": torch.arange(3)}, real)
    assert path.stat().st_blocks * 512 < 100_000 < path.stat().st_size
    loaded = safetensors.load_file(path)
    assert {name: tuple(tensor.shape) for name, tensor in loaded.items()} == {"weight": (2048, 1024), "bias": (2048,)}
    assert loaded["weight"].dtype == torch.float32
    assert safetensors.load_file(real)["on the host"].tolist() == [0, 1, 2]


def test_everything_is_as_it_was_afterwards(tmp_path: Path) -> None:
    def replaced() -> tuple[object, ...]:
        return torch.load, torch.serialization.location_tag, torch.Tensor.data_ptr, torch.UntypedStorage.data_ptr

    before = replaced()
    with dry_run():
        assert replaced() != before
    assert replaced() == before


def test_transformers_saves_a_model(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 2}
    with dry_run():
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=100, **shape)).cuda()
        model.save_pretrained(tmp_path)
        again = transformers.LlamaForCausalLM.from_pretrained(tmp_path)
        assert sum(p.numel() for p in again.parameters()) == sum(p.numel() for p in model.parameters())


def test_a_real_checkpoint_is_never_replaced_by_one_without_values(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    real, packed, own = tmp_path / "real.pt", tmp_path / "real.safetensors", tmp_path / "own.pt"
    torch.save({"weight": torch.ones(3)}, real)
    safetensors.save_file({"weight": torch.ones(3)}, packed)
    with dry_run():
        model, _ = trained()
        torch.save(model.state_dict(), real)
        safetensors.save_file(model.state_dict(), packed)
        assert capsys.readouterr().err.count("is left as it is") == 2
        for epoch in range(2):  # its own it may replace, and others with what has values
            torch.save({"model": model.state_dict(), "epoch": epoch}, own)
        torch.save({"numbers": torch.arange(3)}, tmp_path / "plain.pt")
        torch.save({"numbers": torch.arange(4)}, tmp_path / "plain.pt")
        assert capsys.readouterr().err == ""
    assert torch.load(real)["weight"].tolist() == [1, 1, 1]
    assert safetensors.load_file(packed)["weight"].tolist() == [1, 1, 1]
    assert torch.load(own, map_location="cpu")["epoch"] == 1
    assert torch.load(tmp_path / "plain.pt")["numbers"].tolist() == [0, 1, 2, 3]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["own.pt", "plain.pt", "real.pt", "real.safetensors"]


def test_a_whole_model_is_loaded_where_it_was_saved_from(tmp_path: Path) -> None:
    with dry_run():
        model, _ = trained()
        torch.save(model, tmp_path / "model.pt")
        again = torch.load(tmp_path / "model.pt", weights_only=False)
        assert again.weight.is_cuda
        assert again(torch.randn(2, 1024, device="cuda")).shape == (2, 2048)
