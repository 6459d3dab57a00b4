"""How networks, tokenizers and classifiers learn, on one machine or many, and enter the zoo."""
