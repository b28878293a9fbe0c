"""Let a model answer the prompts of a benchmark, here or behind an endpoint."""
