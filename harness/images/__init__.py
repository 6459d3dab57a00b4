"""Images and codes in and out: data sets, pixels, encoding, shards, stores of generated images."""
