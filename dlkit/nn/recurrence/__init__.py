"""Recurrent layers, linear recurrences, the Neural Turing Machine."""
