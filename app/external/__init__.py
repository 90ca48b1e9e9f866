"""Preference data that was collected elsewhere: checked, imported, and kept apart from the frozen datasets."""
