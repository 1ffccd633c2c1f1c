"""Carries out transfer plans: between ranks, and between ranks and checkpoint files."""
