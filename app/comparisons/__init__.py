"""Comparisons: how a prompt becomes one, and which annotator gets it."""
