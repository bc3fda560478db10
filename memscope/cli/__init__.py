"""The command line: one file per verb; ``main`` turns errors into exit codes."""
