"""The cells of a sweep on other machines."""
