"""Where weights come from: the zoo of small networks, published files, what is in a file."""
