"""Readers of tokens, each of one kind of value. They read what is inside by the reading that calls them."""
