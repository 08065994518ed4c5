"""Diffusion models: encode, predict, generate, and deploy weight changes."""
