"""mdpo: preference optimization that teaches vision-language models to look at the picture."""
