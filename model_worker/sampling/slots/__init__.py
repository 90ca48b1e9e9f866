"""The built-in sampler: rows of many responses advance together, and join and leave at any step (SAMPLING.md, 4.2)."""
