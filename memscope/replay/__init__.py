"""The allocator simulators, verification against a recording, and replay under other strategies."""
