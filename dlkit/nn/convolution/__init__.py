"""Layers that see space: convolutions, pooling, resizing, padding, convolutional blocks."""
