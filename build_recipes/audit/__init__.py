"""Reading ELF, fatbins and wheels, with no CUDA toolkit and no GPU; the audit."""
