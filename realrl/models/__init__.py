"""One packed decoder for training and generation, its families given by data."""
