"""What must not get worse: baselines, the gate that judges new rows by them, and its own test."""
