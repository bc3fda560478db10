"""Formatting of computed results: text, JSON, HTML."""
