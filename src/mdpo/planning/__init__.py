"""What a run will take: tokens, encodings, steps, memory and time, before any weight is loaded."""
