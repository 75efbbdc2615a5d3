"""The front door: one module of tasks per subject. A task parses, calls, prints; it holds no logic."""
