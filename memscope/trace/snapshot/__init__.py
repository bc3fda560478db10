"""Torch's memory snapshots: read safely, whichever version wrote them, and written."""
