"""A build: request, plan, pipeline, stages, result."""
