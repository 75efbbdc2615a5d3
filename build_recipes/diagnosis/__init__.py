"""What went wrong, read from a log."""
