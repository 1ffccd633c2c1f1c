"""What a run will take: memory of each rank, operations of each call, time of each transfer. Pure."""
