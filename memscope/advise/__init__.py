"""What to change: settings searched by replay, with their predicted gain."""
