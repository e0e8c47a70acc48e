"""Sampling from a trained model: the project's own sampler and how it is asked by default (Korbak et al. 2023)."""

TEMPERATURE = 0.7
TOP_P = 0.9
