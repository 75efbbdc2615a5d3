"""The proof of P1 by vLLM's own code: see `test_platform_proof`."""
