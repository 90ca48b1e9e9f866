"""The demo checkpoint: a small chat model, its corpus, and how it is trained."""
