"""Carries out a recipe's graph: program, scheduler, master and workers."""
