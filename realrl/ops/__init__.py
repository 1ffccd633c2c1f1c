"""Kernels, each beside its PyTorch twin."""
