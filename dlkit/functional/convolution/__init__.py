"""Windows over space: convolution, pooling, resizing, padding, patches."""
