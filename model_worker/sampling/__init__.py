"""How responses are drawn: one interface, and the samplers behind it."""
