"""What the suite knows of the machine it runs on: environment, clock, memory, energy, processes."""
