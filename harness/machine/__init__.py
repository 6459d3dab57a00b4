"""The machine: environment, clock, memory, energy, processes, signals, failures, the terminal."""
