"""Where the reference data lies that is too large, or not ours, to be part of the project."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"
DATA = SHARED / "data"
ORACLE = DATA / "oracle"
REAL = DATA / "real"
BAD = DATA / "bad"

needs_shared = pytest.mark.skipif(not DATA.is_dir(), reason=f"reference data is not at {DATA}")
