"""mdpo.objectives."""
