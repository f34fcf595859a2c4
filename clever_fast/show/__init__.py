"""Pictures of what an encoder sees: one a file."""
