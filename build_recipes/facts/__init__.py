"""What is true of devices and of ranges of vLLM versions: TOML tables and the models that read them."""
