"""Finished wheels: rewriting without recompression, the package index, provenance."""
