"""Scans over time, and memory with soft addresses."""
