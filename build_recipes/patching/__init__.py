"""The patch series: what it is (`series`), putting it on a tree (`apply`), what became of it (`states`).

A patch is data: `patches/series.toml` says why it exists, for which versions and devices, and which check
(an *intent*, `intents/`) tells that a tree does what the patch is for.
"""
