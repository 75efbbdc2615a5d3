"""For people who work on this project: what CI runs, documents made from code."""
