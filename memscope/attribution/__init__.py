"""Whose bytes they are: categories, the rules that decide them, and the ledger that closes."""
