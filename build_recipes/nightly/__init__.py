"""The nightly matrix: which wheels are built on which machines, what became of them, and the page that says so."""
