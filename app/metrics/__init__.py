"""What the app tells Prometheus: how the queue, the workers and the week stand, and how requests go."""
