"""Helpers that know nothing of the benchmark."""
