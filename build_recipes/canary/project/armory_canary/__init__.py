"""The canary's package; its module is loaded by path (see build_recipes/canary/trial.py)."""
