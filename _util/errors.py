"""The errors that LOKA raises on purpose."""


class LokaError(Exception):
    """A job that failed although its input is valid. The message names the value and the next step."""

    exit_status = 1


class NotFiniteError(LokaError):
    """A model that gives numbers that are not finite, such as NaN, where something is to be read off them."""


class UserError(LokaError):
    """Invalid input. The message names the value, what is allowed, and the next step."""

    exit_status = 2


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its class if it has none."""
    text = str(error).strip()
    return text.splitlines()[0][:200] if text else type(error).__name__
