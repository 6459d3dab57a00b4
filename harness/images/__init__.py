"""Images and codes in and out: data sets, pixels, code shards, stores of generated images."""
