"""One file per family: how to read its `config.json`, and the names of its tensors."""
