"""Damaged files of all kinds: those that found a fault once, and a minute of others."""

import pathlib

import fuzz
import pytest

from magenta_nsynth.errors import NSynthError

HOSTILE = pathlib.Path(__file__).parent / "data" / "hostile"


@pytest.mark.parametrize("name", sorted(path.name for path in HOSTILE.iterdir()))
def test_a_file_that_found_a_fault(tmp_path, name):
    """`<target>-<what>.<extension>` is refused in one line that names it."""
    path = tmp_path / name.partition("-")[2]
    path.write_bytes((HOSTILE / name).read_bytes())
    with pytest.raises(NSynthError) as info:
        fuzz.TARGETS[name.partition("-")[0]].read(path)
    assert str(tmp_path) in str(info.value) and "\n" not in str(info.value)


@pytest.mark.slow
def test_a_minute_of_damage():
    count, problems = fuzz.fuzz(10_000, seconds=60)
    assert count > 100 and not problems
