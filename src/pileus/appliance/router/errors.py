"""How a router says no: a reason the server decides by, and a text for people."""

from pileus.wire.operations import Reason


class ConfigRefused(Exception):
    """The config is not applied, and the one before still is."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text


class StepFailed(Exception):
    """A part of the router could not take a config; the text says which program said what."""
