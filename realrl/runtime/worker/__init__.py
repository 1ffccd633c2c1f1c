"""A worker: one rank, with its engines, its samples and its part of each instruction."""
