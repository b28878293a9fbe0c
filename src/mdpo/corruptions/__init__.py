"""mdpo.corruptions."""
