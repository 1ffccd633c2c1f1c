"""Starts workers, wherever they run."""
