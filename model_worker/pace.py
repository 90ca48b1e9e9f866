"""How often the worker's threads do what they do."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Pace:
    """Durations, in seconds."""

    claim_wait_s: float = 20.0
    """How long the app may hold a request for work."""
    full_s: float = 0.02
    """How often a full sampler is asked again whether something fits."""
    events_s: float = 0.25
    """New text is sent at most so often."""
    heartbeat_s: float = 5.0
    """The app hears from a worker at least so often, idle or not: promotions travel in its answers."""
    drain_s: float = 8.0
    """How long responses may run on once the worker stops."""
    give_up_s: float = 300.0
    """How long the app may fail on one outcome before it is given up. An app that is away is waited for."""
    farewell_s: float = 5.0
    """How long the app may take over the worker's last word."""
