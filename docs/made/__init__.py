"""Figures and tables of README and docs, each by its maker."""
