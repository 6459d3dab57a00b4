"""Where weights come from: the zoo of small networks, published files, and what is in a file."""
