"""Process groups, the tensor-, pipeline- and data-parallel parts, and the optimizer."""
