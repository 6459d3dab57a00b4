"""The protocols by which a cell's images are judged: our own, ADM's, clean-fid's."""
