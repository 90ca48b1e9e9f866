"""The GPU side of Preferably: draws responses and trains reward models for an app that it calls."""
