"""What a run will take, before it starts: arithmetic, memory, disk and time."""
