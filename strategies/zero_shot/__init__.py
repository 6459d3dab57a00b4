"""What trained networks do beyond what they were trained for, one file per paper."""
