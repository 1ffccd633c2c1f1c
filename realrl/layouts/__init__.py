"""Boxes, layouts and the transfer planner: pure data, no process group."""
