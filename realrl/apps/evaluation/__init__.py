"""Benchmarks by name, their scores, and the tables of these."""
