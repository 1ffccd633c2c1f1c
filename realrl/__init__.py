"""A reinforcement-learning engine for language models: a dataflow graph of calls, each on its own layout."""
