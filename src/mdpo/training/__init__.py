"""mdpo.training."""
