"""Memory in private pools: two graph captures that share one, and a pool of the program's own."""

import torch
from evidence import leave

weight = torch.zeros(512, 512, device="cuda")
handle = torch.cuda.graph_pool_handle()
graphs, outputs = [], []
for n in (64, 300):
    batch = torch.zeros(n, 512, device="cuda")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=handle):
        outputs.append((batch + 1) * 2 + (batch + 3) * 4)
    graphs.append(graph)
for graph in graphs:
    graph.replay()
pool = torch.cuda.MemPool()
with torch.cuda.use_mem_pool(pool):
    inside = [torch.empty(n << 20, dtype=torch.uint8, device="cuda") for n in (1, 5, 30)]
del inside[1]
outside = torch.empty(5 << 20, dtype=torch.uint8, device="cuda")
leave(n_pools=len({tuple(segment["segment_pool_id"]) for segment in torch.cuda.memory_snapshot()}))
