"""Logging, files, seeding: no word of the domain."""
