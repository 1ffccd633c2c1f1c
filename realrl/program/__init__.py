"""The run as data: compiled programs, instructions, and the scheduler that orders them. Pure."""
