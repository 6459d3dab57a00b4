"""What a decode costs before it runs: work counted without weights, device cards, predicted times."""
