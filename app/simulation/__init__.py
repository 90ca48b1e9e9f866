"""Simulated annotators: they drive the running app over HTTP, as people in browsers would."""
