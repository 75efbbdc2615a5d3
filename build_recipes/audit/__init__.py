"""What a wheel can do on each device, read from its files: no CUDA toolkit and no GPU are needed."""
