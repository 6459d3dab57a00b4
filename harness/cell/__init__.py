"""What is asked for: one cell and its key, the rules of its settings, sweep files and those that ship."""
