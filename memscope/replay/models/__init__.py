"""Allocators that are models: their policies, driven call by call or by a recording's requests."""
