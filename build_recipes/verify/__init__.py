"""verify-omni: does this vLLM work with this vllm-omni."""
