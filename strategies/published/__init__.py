"""The authors' files, one module per family: key map, hyper-parameters, settings, what shapes say."""
