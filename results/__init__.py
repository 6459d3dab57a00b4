"""What was measured: the schema of a row, its store on disk, and rows of older schemas read again."""
