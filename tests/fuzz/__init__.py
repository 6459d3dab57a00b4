"""Fuzzing of all that reads what a user hands in: hypothesis in the suite, atheris by ``python -m``."""
