"""Several recordings of one job side by side."""
