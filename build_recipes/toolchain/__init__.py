"""CUDA toolkits, cross compilers, compiler caches and distribution packages."""
