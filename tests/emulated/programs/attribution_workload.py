"""Runs one of the programs that categories are told from, by its name."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from tests.attribution.workloads import WORKLOADS, Watcher

WORKLOADS[sys.argv[1]].run(Watcher())
