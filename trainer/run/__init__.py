"""A run: its state, its checkpoints, what it shows, when it stops."""
