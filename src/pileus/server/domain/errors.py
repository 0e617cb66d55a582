"""The one error hierarchy. Each error carries its public API code; nothing ever matches on its text."""


class PileusError(Exception):
    """Base: an error that may be told to the caller. `code` is the API error code and HTTP status."""

    code = 530

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class Unauthorized(PileusError):
    """Bad signature, session or key; the text never says which."""

    code = 401

    def __init__(self, text: str = "unable to verify user credentials and/or request signature") -> None:
        super().__init__(text)


class MalformedParameter(PileusError):
    """A map or date whose syntax is broken."""

    code = 430


class ParameterError(PileusError):
    """A missing, unknown or unusable value. `parameter` is its wire name."""

    code = 431

    def __init__(self, text: str, *, parameter: str = "") -> None:
        super().__init__(text)
        self.parameter = parameter


class UnsupportedAction(PileusError):
    """An unknown command, or one that this thing cannot do."""

    code = 432


class InternalError(PileusError):
    """A fault of ours; the caller sees a reference into the log and nothing else."""

    code = 530


class PermissionDenied(PileusError):
    """The caller may not do this to that."""

    code = 531


class InsufficientCapacity(PileusError):
    """No host, address, VLAN or storage is left; the text lists each candidate with its reason."""

    code = 533


class ResourceUnavailable(PileusError):
    """A host, router or storage that is needed is down."""

    code = 534


class LimitExceeded(PileusError):
    """A limit of the account or of one of its domains."""

    code = 535


class ResourceInUse(PileusError):
    """It cannot go or change while something else uses it."""

    code = 536


class RuleConflict(PileusError):
    """The network rule overlaps another."""

    code = 537
