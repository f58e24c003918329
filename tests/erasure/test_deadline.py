"""Deadlines against dateutil's months, and against days off that are known."""

import random
from datetime import date, timedelta

import pytest
from dateutil.relativedelta import relativedelta

from loka import UserError
from loka.erasure import deadline
from loka.erasure.deadline import add_months, check_country, check_extension, next_working_day


def test_months_are_those_of_dateutil() -> None:
    rng = random.Random(0)
    for _ in range(500):
        day, months = date(2018, 5, 25) + timedelta(days=rng.randrange(9000)), rng.randrange(-40, 40)
        assert add_months(day, months) == day + relativedelta(months=months)


@pytest.mark.parametrize(
    ("received", "country", "due"),
    [
        (date(2024, 1, 31), "", date(2024, 2, 29)),  # a leap year
        (date(2025, 1, 31), "", date(2025, 2, 28)),
        (date(2026, 1, 31), "", date(2026, 3, 2)),  # 28 February 2026 is a Saturday
        (date(2026, 11, 25), "DE", date(2026, 12, 28)),  # Christmas on Friday and Saturday
        (date(2026, 11, 25), "", date(2026, 12, 25)),
        (date(2026, 12, 6), "DE-BY", date(2027, 1, 7)),  # Epiphany is a day off in Bavaria, not in Berlin
        (date(2026, 12, 6), "de-be", date(2027, 1, 6)),
        (date(2027, 2, 26), "DE", date(2027, 3, 30)),  # Good Friday to Easter Monday
        (date(2026, 6, 14), "FR", date(2026, 7, 15)),
    ],
)
def test_one_calendar_month_to_the_next_working_day(received: date, country: str, due: date) -> None:
    assert deadline(received, country) == due


def test_an_extension_counts_from_receipt() -> None:
    assert deadline(date(2024, 11, 30), months=2) == date(2025, 2, 28)
    assert deadline(date(2025, 10, 31), months=1) == date(2025, 12, 31)


def test_a_working_day_stays() -> None:
    assert next_working_day(date(2024, 11, 29), "DE") == date(2024, 11, 29)


@pytest.mark.parametrize(
    ("country", "words"),
    [("Germany", "give an ISO code"), ("DE-XX", "choose from BB, BE"), ("XQ", "unknown")],
)
def test_an_unknown_country_is_named(country: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        check_country(country)


@pytest.mark.parametrize(
    ("months", "today", "words"),
    [
        (3, date(2024, 12, 4), "give --months 1 or 2"),
        (0, date(2024, 12, 4), "give --months 1 or 2"),
        (1, date(2024, 12, 5), "must be announced within it"),
    ],
)
def test_an_extension_that_the_law_does_not_allow(months: int, today: date, words: str) -> None:
    check_extension(2, date(2024, 12, 4), date(2024, 12, 4))
    with pytest.raises(UserError, match=words):
        check_extension(months, date(2024, 12, 4), today)
