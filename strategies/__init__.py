"""The methods, one file per paper; what they share is in ``decoding``, published files in ``published``."""
