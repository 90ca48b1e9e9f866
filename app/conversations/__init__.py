"""Conversations as text: what was said before a comparison, for the screen, the sampler and the dataset."""
