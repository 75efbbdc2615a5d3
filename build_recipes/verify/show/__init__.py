"""Verdicts on a terminal and on a page."""
