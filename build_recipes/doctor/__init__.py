"""What a machine is, and what stops a build or a run on it."""
