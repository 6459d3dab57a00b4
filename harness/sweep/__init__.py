"""Cells run one by one, each in a process of its own, each on disk before the next."""
