"""The master: sends instructions to workers and records what they report."""
