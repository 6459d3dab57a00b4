"""The network of a cell at work: prepared, loaded, compiled, decoding; editing and enlarging."""
