"""Following vLLM: a new release becomes a change of this project, with a report of what moved."""
