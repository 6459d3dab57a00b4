"""What is asked for: one cell and its key, sweep files, and the sweeps that ship."""
