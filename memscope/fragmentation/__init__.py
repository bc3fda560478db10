"""What is held without being used, measured on one state."""
