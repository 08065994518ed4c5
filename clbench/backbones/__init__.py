"""Run diffusion models: encode, predict, generate, and deploy weight changes."""
