"""One device of a trace, and every measured fact of it."""
