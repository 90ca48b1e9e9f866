"""What the web app and the model worker both say; imports neither side, and nothing heavier than Pydantic."""
