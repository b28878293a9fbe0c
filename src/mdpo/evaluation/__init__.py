"""mdpo.evaluation."""
