"""The output filter of the method `exclude`: does a generated text name a person on the exclusion list?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from .._util.errors import UserError
from .exclusion_list import ExclusionList
from .records import Record
from .search.rules import RULES


class OutputFilter:
    """Says whether a text that a model generated names a person on an exclusion list, by keyed digests alone.

    It finds identifiers and names, written as the exclusion list finds them in training data. It does not find a person
    who is described but not named, a nickname, a name with two wrong letters in one part, or a name in another
    encoding; docs/erasure.md has the whole list. It is a stopgap until the next training, and no erasure.

    Args:
        exclusions: the list, such as `held_back.exclusions(register)`.
        least: rules of lower confidence hold nothing back; each entry of the list has a limit of its own as well.

    Raises:
        UserError: a confidence that is not between 0 and 1.

    Example:
        output = OutputFilter(exclusions)
        answer = output.apply(answer, prompt=question, instead="I cannot say anything about that person.")
    """

    def __init__(self, exclusions: ExclusionList, *, least: float = 0.0) -> None:
        if not 0 <= least <= 1:
            raise UserError(f"least cannot be {least}; give a confidence from 0 to 1.")
        self.least = least
        self._screen = exclusions.screen()

    def find(self, text: str, *, prompt: str = "") -> Mapping[str, str]:
        """Whom a text names: the name of the strongest rule by pseudonym. Empty if it may be shown.

        Args:
            text: all that was generated so far, not only the last piece: a name may be parted between two.
            prompt: what the model was asked. An answer to a question that names the person is about the person, also
                where it says no name.

        Cost: well under a millisecond for a page.
        """
        texts = (prompt, text) if prompt else (text,)
        found = self._screen.match(Record(Path(), 0, texts, (), b""))
        return {who: rule for who, rule in found.items() if RULES[rule].confidence >= self.least}

    def apply(self, text: str, *, prompt: str = "", instead: str = "") -> str:
        """The text, or what is shown in its place if it names somebody."""
        return instead if self.find(text, prompt=prompt) else text
