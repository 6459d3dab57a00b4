"""The protocols by which a cell's images are judged."""
