"""The queue that model workers pull from, and the API they call."""
