"""The registry of chat checkpoints, and which of them is current."""
