"""Training: settings, trainer, and what is written beside the weights."""
