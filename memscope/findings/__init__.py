"""What deserves a user's attention in a trace: found by fixed rules, each with its evidence."""
