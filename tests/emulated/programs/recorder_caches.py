"""Generations with each kind of cache, each recorded by itself, and what their caches hold at the end."""

import json
import sys
from pathlib import Path

import memscope

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
from tests.capture.cache_programs import PROGRAMS, held_bytes

folder, names = Path(sys.argv[1]), sys.argv[2:]
held = {}
for name in names:
    with memscope.record(folder / f"{name}.memscope"):
        cache = PROGRAMS[name]()
        held[name] = held_bytes(cache)
    del cache
(folder / "held.json").write_text(json.dumps(held))
