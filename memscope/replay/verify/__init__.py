"""Is the simulator right about this very recording? Followed event by event under its own settings."""
