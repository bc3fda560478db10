"""Serving replays: where key/value memory goes beside the published figures, and tokens replayed a second.

    python benchmarks/kv.py [--requests 20000]

The setting is that of the PagedAttention paper (arXiv 2309.06180, figure 2): OPT-13B on an A100 40GB, of which 12 GB
are left for keys and values, sequences of up to 2,048 tokens, ShareGPT-like lengths, more requests than can be served.
Its three baselines reserve contiguous memory with a buddy allocator: for the longest sequence (Max), for the output
rounded up to a power of two (Pow2), and for the true length (Oracle). Shares are of the memory that requests claim.

Why figures differ from the published ones: lengths are drawn from lognormal distributions with ShareGPT's means rather
than from the data; the steps' times are a model; the buddy allocator's rounding is counted as external waste, and the
paper does not say where it counts it. Speed is on one core, kernels compiled beforehand, this process's own seconds;
the slow twin of the tests serves the beginning of the same requests in the same run.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from memscope.kv.config_file import read_model_config  # noqa: E402
from memscope.kv.managers import MANAGERS, ManagerOptions  # noqa: E402
from memscope.kv.parameters import count_parameters  # noqa: E402
from memscope.kv.request_generator import GeneratorOptions, generate_requests  # noqa: E402
from memscope.kv.scheduler import SchedulerOptions  # noqa: E402
from memscope.kv.shapes import KvShape  # noqa: E402
from memscope.kv.simulate import KvJob, simulate  # noqa: E402
from memscope.kv.speeds import make_cost_model, peaks_of  # noqa: E402
from tests.kv.serving import naive  # noqa: E402

PUBLISHED = {
    "max-length": ("Orca (Max)", 20.4),
    "buddy": ("Orca (Pow2)", 26.8),
    "oracle-length": ("Orca (Oracle)", 38.2),
    "paged": ("vLLM", 96.3),
}
"""Share that holds tokens, in percent: figure 2 of the paper."""
KV_BYTES = 12 * 10**9
N_TWIN = 150


def paper_job(n_requests: int, manager: str) -> KvJob:
    """The paper's setting, with more requests than can be served."""
    config = read_model_config("opt-13b")
    parameters = count_parameters(config)
    return KvJob(
        shape=KvShape(config.kv_layers()),
        requests=generate_requests(GeneratorOptions(n_requests, rate_per_s=50.0)),
        kv_bytes=KV_BYTES,
        manager=manager,
        options=ManagerOptions(block_size=16, max_length=2048),
        scheduler=SchedulerOptions(),
        cost=make_cost_model(
            config, parameters, parameters.bytes_per_gpu(), peaks_of("A100-40GB", None, None), tensor_parallel=1
        ),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=20_000)
    n_requests = parser.parse_args().requests
    names = [name for name, manager in MANAGERS.items() if manager.is_default]
    for name in names:
        simulate(paper_job(10, name))
    heads = ("manager", "tokens", "reserved", "internal", "external", "published", "seconds", "Mtokens/s")
    print("{:15}{:>8}{:>10}{:>10}{:>10}  {:22}{:>8}{:>11}".format(*heads))
    for name in names:
        one = paper_job(n_requests, name)
        start = time.process_time()
        result = simulate(one)
        seconds = time.process_time() - start
        waste = result.waste
        parts = (waste.tokens, waste.reservation, waste.internal, waste.external)
        shares = [f"{100 * (waste.share(part) or 0):.1f} %" for part in parts]
        peer, figure = PUBLISHED.get(name, ("", 0.0))
        published = f"{figure} % {peer}" if peer else ""
        rate = result.n_generated_tokens / seconds / 1e6
        print(
            "{:15}{:>8}{:>10}{:>10}{:>10}  {:22}{:>8}{:>11}".format(
                name, *shares, published, f"{seconds:.2f}", f"{rate:.1f}"
            )
        )
    _beside_the_twin()


def _beside_the_twin() -> None:
    one = paper_job(N_TWIN, "paged")
    times = []
    for run in (simulate, naive):
        start = time.process_time()
        run(one)
        times.append(time.process_time() - start)
    print(
        f"paged, {N_TWIN} requests: kernel {times[0]:.3f} s, slow twin {times[1]:.2f} s, "
        f"{times[1] / times[0]:,.0f} times"
    )


if __name__ == "__main__":
    main()
