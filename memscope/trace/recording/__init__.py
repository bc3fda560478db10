"""A recording under way: its folder, what is noted beside the events, and how a trace is made of it."""
