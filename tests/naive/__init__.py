"""Naive implementations of the methods, from their specifications alone, that make recordings.

They share no line with the strategies: weights by published keys, no caches, explicit masks, loops where the
papers have loops. Each module is of one family, or of one side of it, and holds ``CASES``: name -> a function
that makes a recording of a setting that no recording of the published implementations shows. What several
share is in ``parts`` and ``convolutions``.
"""
