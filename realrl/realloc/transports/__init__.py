"""What carries the messages of transfers: `realrl.api.transport` is the contract."""
