"""verify-omni: whether vllm-omni, or another package, works with a vLLM, read from the sources of both."""
