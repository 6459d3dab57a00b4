"""Networks that know no strategy: the shared trunk, its cache and positions, checkpoints, tokenizers."""
