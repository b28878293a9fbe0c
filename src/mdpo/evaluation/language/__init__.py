"""Words, nouns and tags, as the official scorers of benchmarks see them."""
