"""Names that are imported when they are first used."""

import importlib
import inspect
import sys
from pathlib import Path

import pytest

import loka
from loka._util.on_demand import on_demand


def test_a_name_is_imported_once_when_it_is_first_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lazy").mkdir()
    (tmp_path / "lazy" / "__init__.py").write_text("")
    (tmp_path / "lazy" / "inner.py").write_text("thing = object()\n")
    monkeypatch.syspath_prepend(tmp_path)
    package = importlib.import_module("lazy")
    vars(package)["__getattr__"] = on_demand("lazy", {".": ["inner"], ".inner": ["thing"]})
    assert "lazy.inner" not in sys.modules
    assert package.thing is sys.modules["lazy.inner"].thing
    assert package.inner is sys.modules["lazy.inner"]
    assert vars(package)["thing"] is package.thing
    with pytest.raises(AttributeError, match="module 'lazy' has no attribute 'owl'"):
        _ = package.owl
    for name in ("lazy", "lazy.inner"):
        del sys.modules[name]


def test_the_face_has_all_its_names_and_audit_stays_the_function() -> None:
    assert all(getattr(loka, name) for name in loka.__all__)
    assert set(loka.__all__) <= set(dir(loka))
    importlib.import_module("loka.audit.plan")
    assert inspect.isfunction(loka.audit)
    assert loka.audit is importlib.import_module("loka.audit.auditor").audit
    with pytest.raises(AttributeError, match="has no attribute 'owl'"):
        vars(loka)["__getattr__"]("owl")
