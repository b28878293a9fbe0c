"""mdpo.cli."""
