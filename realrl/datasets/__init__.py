"""Prompts, demonstrations, and the demo model."""
