"""A tiny CUDA extension, built as the big build would build it."""
