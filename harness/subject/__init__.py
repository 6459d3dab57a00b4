"""The network of a cell at work: prepared, pinned, loaded, compiled, decoding; editing and enlarging."""
