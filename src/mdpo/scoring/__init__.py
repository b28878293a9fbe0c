"""mdpo.scoring."""
