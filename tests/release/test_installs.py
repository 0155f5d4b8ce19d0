"""What `python3 dev.py installs --from` takes; the command itself is run by .ci/run."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from release import dist, installs

SDIST, PURE = "kong_pdk-1.2.3.tar.gz", "kong_pdk-1.2.3-py3-none-any.whl"


def files(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).touch()
    return folder


def test_what_was_made_before_is_taken(tmp_path: Path) -> None:
    made = files(tmp_path, SDIST, PURE, "kong_pdk-1.2.3-cp39-cp39-manylinux_2_28_x86_64.whl")
    with installs.distributions(made) as (sdist, pure, folder):
        assert (sdist, pure) == (made / SDIST, made / PURE)
        assert folder.is_dir() and folder != made


@pytest.mark.parametrize("names", [(), (SDIST,), (PURE,), (SDIST, PURE, SDIST.replace("2", "4"))])
def test_one_of_each_must_be_there(tmp_path: Path, names: tuple[str, ...]) -> None:
    wanted = pytest.raises(installs.InstallError, match="must be one sdist and one pure wheel in")
    with wanted, installs.distributions(files(tmp_path, *names)):
        pass


def test_a_wheel_is_chosen_by_pip_and_not_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, ...]] = []

    def pip(bench: installs.Bench, python: Path, *arguments: str, **variables: str) -> str:
        asked.append(arguments)
        (bench.folder / "wheels").mkdir()
        (bench.folder / "wheels" / PURE).touch()
        return ""

    monkeypatch.setattr(installs, "pip", pip)
    monkeypatch.setattr(installs.Bench, "venv", lambda bench, name: Path(sys.executable))
    made = tmp_path / "made"
    bench = installs.Bench(Path(sys.executable), made / SDIST, made / PURE, tmp_path, made)
    assert bench.compiled() == bench.compiled() == tmp_path / "wheels" / PURE
    (arguments,) = asked
    assert arguments[0] == "download" and {"--no-index", str(made)} <= set(arguments)
    assert arguments[-1] == f"kong-pdk=={dist.version()}"
