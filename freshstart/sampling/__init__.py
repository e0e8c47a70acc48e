"""Sampling from a model: the project's own sampler."""
