"""Really importing it, in an environment of its own."""
