"""Deadlines under Art. 12(3) GDPR: one calendar month from receipt, and at most two further months.

A period of months ends on the day with the number of the day of receipt, or on the month's last day if the month has no
such day. If that is not a working day, the period ends on the next working day (Regulation 1182/71, Art. 3).
"""

from __future__ import annotations

import calendar
import difflib
from datetime import date, timedelta
from typing import TYPE_CHECKING

from .._util.errors import UserError
from .extra import extra

if TYPE_CHECKING:
    from holidays import HolidayBase

MOST_MONTHS = 2


def deadline(received: date, country: str = "", *, months: int = 0) -> date:
    """The last day for an answer.

    Args:
        received: the day of receipt.
        country: an ISO code such as `DE`, or with a region, `DE-BY`, for public holidays. Without one, only Saturdays
            and Sundays move the day, which never gives a later one.
        months: by how many further months the deadline was extended.

    Raises:
        UserError: an unknown country or region, or the extra `erasure` is not installed.
    """
    return next_working_day(add_months(received, 1 + months), country)


def add_months(day: date, months: int) -> date:
    """The same day so many months later, or the last day of that month.

    >>> add_months(date(2026, 1, 31), 1), add_months(date(2027, 11, 30), 3)
    (datetime.date(2026, 2, 28), datetime.date(2028, 2, 29))
    """
    year, month = divmod(day.year * 12 + day.month - 1 + months, 12)
    return date(year, month + 1, min(day.day, calendar.monthrange(year, month + 1)[1]))


def next_working_day(day: date, country: str = "") -> date:
    """This day if it is a working day in the country, or else the first one after it. Raises as `deadline`."""
    days_off = _holidays(country) if country else None
    while day.weekday() >= 5 if days_off is None else not days_off.is_working_day(day):
        day += timedelta(days=1)
    return day


def check_country(country: str) -> str:
    """The country's code as `holidays` spells it. Raises as `deadline`."""
    if country:
        _holidays(country)
    return country.strip().upper()


def check_extension(months: int, first_due: date, today: date) -> None:
    """Refuse an extension that the law does not allow; `first_due` ends the first month.

    Raises:
        UserError: other than one or two months, or after the first month.
    """
    if not 1 <= months <= MOST_MONTHS:
        raise UserError(f"an extension of {months} months is not allowed; give --months 1 or 2.")
    if today > first_due:
        raise UserError(
            f"the first month ended on {first_due}, and an extension must be announced within it (Art. 12(3)); "
            "answer the request now, or refuse it."
        )


def days_left(due: date, today: date) -> int:
    """Days until the deadline: 0 on its day, negative after it."""
    return (due - today).days


def in_words(days: int) -> str:
    """Days left as people say it.

    >>> in_words(12), in_words(1), in_words(0), in_words(-1)
    ('12 days left', '1 day left', 'due today', '1 day overdue')
    """
    if days == 0:
        return "due today"
    return f"{abs(days)} day{'s' if abs(days) != 1 else ''} {'left' if days > 0 else 'overdue'}"


def _holidays(country: str) -> HolidayBase:
    with extra():
        import holidays
    code, _, region = country.strip().upper().partition("-")
    known = holidays.list_supported_countries(include_aliases=True)
    if code not in known:
        near = difflib.get_close_matches(code, known, 3, 0.5) or ["DE", "FR"]
        raise UserError(f"the country {country!r} is unknown; give an ISO code such as {' or '.join(near)}.")
    regions = {name.upper(): name for name in known[code]}
    if region and region not in regions:
        choices = f"choose from {', '.join(regions.values())}" if regions else f"give {code} alone"
        raise UserError(f"{code} has no region {region!r}; {choices}.")
    return holidays.country_holidays(code, subdiv=regions.get(region))
