"""The commands of `clever-fast`, one a file; each is a function with the command's name."""
