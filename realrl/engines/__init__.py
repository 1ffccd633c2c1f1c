"""A model on a layout: train, inference, generate."""
