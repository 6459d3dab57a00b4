"""A sweep: each cell in a process of its own, each row on disk before the next; then cells in turn."""
