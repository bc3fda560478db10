"""Labels, headlines and verdicts: what a result is called and what it says, for every surface."""
