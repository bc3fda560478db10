"""Compiling every kernel ahead of its first use."""

from memscope.replay.compiling import compile_kernels
from memscope.replay.strategies import STRATEGIES


def test_compiling_ahead_counts_every_strategy_and_the_verification():
    seen = []
    compile_kernels(lambda n_done, n_all: seen.append((n_done, n_all)))
    assert seen == [(i + 1, len(STRATEGIES) + 1) for i in range(len(STRATEGIES) + 1)]
