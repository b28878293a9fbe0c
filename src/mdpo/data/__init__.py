"""mdpo.data."""
