"""The stages a build walks through, one module each; each returns a frozen result."""
