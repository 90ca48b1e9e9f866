"""Training sets: a named union of frozen and external datasets with a margin scheme and a filter."""
