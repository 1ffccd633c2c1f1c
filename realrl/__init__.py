"""A reinforcement-learning engine for language models: a dataflow graph of calls, each on its own layout."""

__version__ = "0.1.0"
