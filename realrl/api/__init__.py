"""Frozen data and protocols that every layer shares."""
