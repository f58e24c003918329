"""Floor 7: requests for erasure, their deadlines, and the register that keeps the record."""

from .deadline import deadline
from .keys import Keyring
from .overview import overview
from .page import write_page
from .person import Person
from .record import Request
from .register import Register
from .request import read_request
from .trail import Entry, Fault

__all__ = [
    "Entry",
    "Fault",
    "Keyring",
    "Person",
    "Register",
    "Request",
    "deadline",
    "overview",
    "read_request",
    "write_page",
]
