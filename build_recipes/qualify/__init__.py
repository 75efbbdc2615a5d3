"""Qualify a wheel in tiers: audit, import, platform, kernels, generate, omni. Depends on no build stage.

This program never imports torch or vllm itself: what needs them runs as a small script (``scripts/``) in an
environment that holds the wheel, under a time limit, and leaves its findings in a JSON file.
"""
