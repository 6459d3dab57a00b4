"""What one cell measures around its images: times and their repeats, memory, cells timed in turn."""
