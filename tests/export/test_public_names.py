"""Which names are public, and which only look so."""

from __future__ import annotations

import pytest

from memscope.export._public_names import (
    file_hints,
    is_public_label,
    is_settings,
    is_tensor,
    public_file,
    public_function,
)


@pytest.mark.parametrize(
    ("path", "public"),
    [
        ("/home/me/.venv/lib/python3.11/site-packages/torch/nn/functional.py", "torch/nn/functional.py"),
        ("C:\\Users\\me\\venv\\Lib\\site-packages\\torch\\nn\\functional.py", "torch/nn/functional.py"),
        ("/usr/lib/python3/dist-packages/numpy/core.py", "numpy/core.py"),
        ("/home/me/conda/lib/python3.10/contextlib.py", "contextlib.py"),
        ("torch/optim/adam.py", "torch/optim/adam.py"),
        ("contextlib.py", "contextlib.py"),
        ("<frozen importlib._bootstrap>", "<frozen importlib._bootstrap>"),
        ("/build/7/pytorch/c10/cuda/CUDACachingAllocator.cpp", "c10/cuda/CUDACachingAllocator.cpp"),
        ("/home/me/venv/lib/libtorch_cpu.so", "libtorch_cpu.so"),
        ("/tmp/torchinductor_me/ab/cab.py", "torchinductor_/compiled.py"),
        ("", ""),
        ("??", "??"),
    ],
)
def test_public_files_lose_what_lies_above_them(path: str, public: str) -> None:
    assert public_file(path) == public


@pytest.mark.parametrize(
    "path",
    [
        "/home/me/train.py",
        "train.py",
        "test/secret_model.py",
        "code/secret.py",
        "email/secret.py",
        "/home/me/project/lib/python3/secret.py",
        "/home/me/lib/python3.11/site-packages/secret_company/model.py",
        "/home/me/lib/python3.11/../secret.py",
        "composer/secret.py",
        "/home/me/torch/secret.cpp",
        "/home/me/libsecret.so",
        "/home/me/libcompany.so",
        "<eval_with_key>.0 from /home/me/x.py",
        "torch",
    ],
)
def test_other_files_are_private(path: str) -> None:
    assert public_file(path) is None


@pytest.mark.parametrize(
    ("name", "is_python", "public"),
    [
        ("forward", True, "forward"),
        ("<module>", True, "<module>"),
        ("<lambda>", True, "<lambda>"),
        ("secret_forward", True, None),
        ("PySecret", True, None),
        ("custom_loss", False, None),
        ("main_secret", False, None),
        ("at::native::empty_cuda", False, "at::native::empty_cuda"),
        ("torch::autograd::Engine::run<Secret>(int)", False, "torch::autograd::Engine::run"),
        ("std::function<void (secret::Foo)>::operator()", False, "std::function::operator"),
        ("void torch::autograd::run<secret::Foo<int>>(secret::Foo const&)", False, "torch::autograd::run"),
        ("void secret::run(at::Tensor)", False, None),
        ("secret::Foo::run()", False, None),
        ("PyObject_Call", False, "PyObject_Call"),
        ("_PyEval_EvalFrameDefault", False, "_PyEval_EvalFrameDefault"),
        ("cudaMalloc", False, "cudaMalloc"),
    ],
)
def test_functions(name: str, is_python: bool, public: str | None) -> None:
    assert public_function(name, is_python=is_python) == public


def test_labels_and_tensors() -> None:
    for text in ("3", "step 3", "Epoch 12", "ProfilerStep#7", "forward", "Backward"):
        assert is_public_label(text)
    for text in ("secret 3", "step secret", "", "3 blind mice"):
        assert not is_public_label(text)
    for text in ("float32 [32000, 4096]", "bfloat16 []", "bool [3]", "float8_e4m3fn [1, 2]"):
        assert is_tensor(text)
    for text in ("secret [3]", "float32 [secret]", "float32"):
        assert not is_tensor(text)


def test_settings_are_settings_and_nothing_else() -> None:
    for text in ("", "expandable_segments:True", "max_split_size_mb:128,roundup_power2_divisions:[256:1,512:2,>:4]"):
        assert is_settings(text)
    for text in ("backend:/home/me/alloc.so", "backend:secret", "secret:True"):
        assert not is_settings(text)


def test_a_file_keeps_the_words_that_rules_look_for() -> None:
    assert file_hints("/home/me/my_optimizer/secret.py") == "optim"
    assert file_hints("/home/me/data/secret.py") == ""
    assert file_hints("C:\\me\\secret_data_loader.py") == "data_load"
