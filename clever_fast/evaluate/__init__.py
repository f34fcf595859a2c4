"""What a representation is worth: one protocol a file."""
