"""The wheel holds the package and nothing else, whatever the checkout's folder is called."""

import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
STAYS_HOME = {"tests", "notebooks", "bench"}


def python(*arguments: str | Path, cwd: Path) -> str:
    done = subprocess.run([sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout as a clone would have it, under a name that is not the package's."""
    made = (".git", ".venv", "build", "dist", "runs", "*.egg-info", "__pycache__", ".*_cache")
    copy = tmp_path_factory.mktemp("packaging") / "my-repo"
    return shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*made))


@pytest.fixture(scope="module")
def wheel(checkout: Path) -> Path:
    out = checkout.parent / "wheel"
    options = ("--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation", "--wheel-dir")
    python("-m", "pip", "wheel", *options, out, checkout, cwd=checkout.parent)
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def shipped(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def rooms(checkout: Path) -> list[Path]:
    """The folders with modules at the checkout's root, but for those that are not part of the package."""
    return [
        folder
        for folder in checkout.iterdir()
        if folder.name not in STAYS_HOME and folder.is_dir() and list(folder.rglob("*.py"))
    ]


def test_only_the_package_is_shipped(checkout: Path, rooms: list[Path], shipped: set[str]) -> None:
    assert {name.split("/")[0] for name in shipped} == {
        "loka",
        f"loka-{PROJECT['project']['version']}.dist-info",
    }
    allowed = {"py.typed", *(room.name for room in rooms), *(module.name for module in checkout.glob("*.py"))}
    assert {name.split("/")[1] for name in shipped if name.startswith("loka/")} <= allowed


def test_everything_in_the_rooms_is_shipped(checkout: Path, rooms: list[Path], shipped: set[str]) -> None:
    assert all((room / "__init__.py").is_file() for room in rooms)
    files = [file for room in rooms for file in room.rglob("*") if file.is_file()]
    wanted = {f"loka/{file.relative_to(checkout).as_posix()}" for file in [*files, *checkout.glob("*.py")]}
    assert wanted | {"loka/py.typed"} <= shipped


def test_the_wheel_imports_under_its_own_name(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = "import sys; sys.path.insert(0, '.'); import loka; print(loka.__file__)"
    assert Path(python("-P", "-c", code, cwd=tmp_path)) == tmp_path / "loka" / "__init__.py"


def test_the_command_is_declared(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        entry = next(name for name in archive.namelist() if name.endswith("entry_points.txt"))
        assert "loka = loka.cli:main" in archive.read(entry).decode()


def test_the_pins_satisfy_the_ranges() -> None:
    from packaging.requirements import Requirement

    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    pins = {name.lower().replace("_", "-"): version for name, version in pins.items()}
    project = PROJECT["project"]
    for line in project["dependencies"] + project["optional-dependencies"]["dev"]:
        requirement = Requirement(line)
        if requirement.name != "pip":  # comes with the environment
            assert pins[requirement.name] in requirement.specifier, line
