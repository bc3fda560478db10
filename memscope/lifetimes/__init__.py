"""From events to allocations: lifetimes, usage over time, the exact state at any event, peaks, completeness."""
