"""How long, how much memory, how many steps: what one cell measures around its images."""
