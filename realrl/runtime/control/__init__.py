"""The control channel between the master and its workers."""
