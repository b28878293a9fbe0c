"""mdpo.models."""
