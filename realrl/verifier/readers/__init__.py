"""Readers of tokens, each for one kind of value. They ask the reading that calls them to read the parts."""
