"""Normalization of activations, of inputs, and of weights."""
