"""Locate, download and load models and images."""
