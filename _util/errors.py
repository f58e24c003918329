"""The one kind of error that LOKA raises on purpose."""


class LokaError(Exception):
    """A job that failed through no fault of the input. The message names the value and the next step."""

    exit_status = 1


class UserError(LokaError):
    """Input at fault. The message names the value, what is allowed, and the next step."""

    exit_status = 2
