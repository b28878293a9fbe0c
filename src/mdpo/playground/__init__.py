"""mdpo.playground."""
