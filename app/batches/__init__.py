"""The weekly batch: its settings, its life cycle, and the reconciler that moves it along."""
