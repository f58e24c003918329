"""Two processes on one folder: the second is refused with the number and the start of the first."""

import gc
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import psutil
import pytest

from loka._util import lock
from loka._util.errors import UserError
from loka._util.lock import hold, locked

# Another process; it loads no more of the package than it needs.
OTHER = f"""
import sys, time, types
from pathlib import Path
package = sys.modules["loka"] = types.ModuleType("loka")
package.__path__ = [{str(Path(lock.__file__).parents[1])!r}]
from loka._util.lock import locked
with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(float(sys.argv[2]))
"""


class Owner:
    """Something that holds a folder."""


def other(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", OTHER, folder, "60"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "locked\n"
    return process


def test_the_second_process_is_refused_while_the_first_lives(tmp_path: Path) -> None:
    first = other(tmp_path / "run")
    started = datetime.fromtimestamp(psutil.Process(first.pid).create_time()).isoformat(" ", "seconds")
    try:
        said = f"process {first.pid}, which began at {started}, works on '.*run'; wait until it ends, stop it, or name"
        for _ in range(2):
            with pytest.raises(UserError, match=said):
                hold(tmp_path / "run", Owner())
    finally:
        first.kill()
        first.wait()
    with locked(tmp_path / "run"):
        assert f"process {os.getpid()}," in (tmp_path / "run" / "lock").read_text()


def test_one_process_may_open_a_folder_twice_and_lets_go_of_it_with_the_last(tmp_path: Path) -> None:
    owners = [Owner(), Owner()]
    for owner in owners:
        hold(tmp_path, owner)
    del owner
    owners.pop()
    gc.collect()
    assert refused(tmp_path)
    owners.clear()
    gc.collect()
    assert not refused(tmp_path)


def refused(folder: Path) -> bool:
    found = subprocess.run([sys.executable, "-c", OTHER, folder, "0"], capture_output=True, text=True)
    assert found.returncode == 0 or "UserError" in found.stderr
    return found.returncode != 0
