"""The base of the errors that both sides raise on purpose; each says what is wrong and what to do."""


class ContractError(Exception):
    """An expected failure whose message is meant for a person."""
