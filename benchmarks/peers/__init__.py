"""Scripts that run other systems for `benchmarks.peer`, each in that system's environment.

They import nothing of realrl: with `exchange.py`, which lies beside them, they are all that runs there.
"""
