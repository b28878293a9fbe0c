"""Which of two answers do people prefer? A blind page, and what votes on it say."""
