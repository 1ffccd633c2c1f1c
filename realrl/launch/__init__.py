"""Launchers: start workers on this machine or on a cluster."""
