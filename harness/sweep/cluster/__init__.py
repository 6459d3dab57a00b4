"""The cells of a sweep on other machines: a driver deals them to a pool, workers run on its nodes."""
