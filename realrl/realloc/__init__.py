"""Execution of transfer plans: between ranks, and between ranks and checkpoint files."""
