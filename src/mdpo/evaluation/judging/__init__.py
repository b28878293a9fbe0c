"""Let a language model judge answers, or take them apart, before they are scored."""
