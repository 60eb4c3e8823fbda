"""What `benchmarks/layers.py` times, one file a family: the same layer with the same weights in each library."""
