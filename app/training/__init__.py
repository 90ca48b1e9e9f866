"""Training runs as the app sees them: queued, handed to a worker, followed, and the reward models they make."""
