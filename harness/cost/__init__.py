"""What a decode costs before it runs: work traced without weights, device cards, predicted times."""
