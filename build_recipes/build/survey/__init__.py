"""The survey: how far each vLLM release comes on each device, from the lock to a configured tree.

`cells` is what is known of a pair, `walk` makes it, `sampling` compiles one unit of a module, `publish` writes docs/.
"""
