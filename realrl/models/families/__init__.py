"""One file a family: how to read its `config.json`, and what its tensors are called."""
