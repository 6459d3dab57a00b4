"""Fuzzing of everything that reads what a user hands in: hypothesis in the suite, atheris by ``python -m``."""
