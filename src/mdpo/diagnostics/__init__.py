"""mdpo.diagnostics."""
