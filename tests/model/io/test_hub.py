"""A name that is no model is refused after one question, with the name that was meant."""

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import RepositoryNotFoundError

from loka import load
from loka._util.errors import UserError


class Hub:
    """A hub that fails; it counts how often it is asked."""

    def __init__(self, error: Exception) -> None:
        self.error, self.asked = error, 0

    def __call__(self, *_: Any, **__: Any) -> None:
        self.asked += 1
        raise self.error


NOT_FOUND = RepositoryNotFoundError.__new__(RepositoryNotFoundError)


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("smolm2", NOT_FOUND, r"'smolm2', and the hub has no such model; give 'smollm2', .* Did you mean 'smollm2'\?"),
        ("some/model", NOT_FOUND, r"'some/model', and the hub has no such model; .* you can reach\.$"),
        ("some/model", ConnectionError("no route"), r"the hub cannot be asked \(no route\)"),
        ("some model", NOT_FOUND, "it is not a hub id either"),
    ],
)
def test_a_mistyped_name_is_refused_at_once(
    name: str, error: Exception, words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hub = Hub(error)
    monkeypatch.setattr(HfApi, "model_info", hub)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=words):
        load(name)
    assert hub.asked <= 1
