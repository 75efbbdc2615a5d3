"""Host checks, the canary and failure signatures."""
