"""Whether a device computes what the CPU does, and how near its limits it comes: checks of some minutes."""
