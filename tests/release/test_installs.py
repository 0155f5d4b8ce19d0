"""What `python3 dev.py installs --dist` takes; the command itself is run by .ci/run."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from release import dist, installs

SDIST = f"kong_pdk-{dist.version()}.tar.gz"
PURE = f"kong_pdk-{dist.version()}-py3-none-any.whl"
COMPILED = f"kong_pdk-{dist.version()}-cp39-cp39-manylinux_2_28_x86_64.whl"


def files(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).touch()
    return folder


def test_what_was_made_before_is_taken(tmp_path: Path) -> None:
    made = files(tmp_path, SDIST, PURE, COMPILED)
    with installs.distributions(made) as (sdist, pure, folder):
        assert (sdist, pure) == (made / SDIST, made / PURE)
        assert folder.is_dir() and folder != made


@pytest.mark.parametrize("names", [(), (SDIST,), (PURE, "kong_pdk-0.1.tar.gz")])
def test_it_must_be_there(tmp_path: Path, names: tuple[str, ...]) -> None:
    wanted = pytest.raises(
        installs.InstallError, match=r"is missing: python3 dev\.py dist makes it"
    )
    with wanted, installs.distributions(files(tmp_path, *names)):
        pass


@pytest.mark.parametrize("chosen", [COMPILED, PURE])
def test_a_wheel_is_chosen_by_pip_and_not_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chosen: str
) -> None:
    asked: list[tuple[str, ...]] = []

    def pip(bench: installs.Bench, python: Path, *arguments: str, **variables: str) -> str:
        asked.append(arguments)
        (bench.folder / "wheels").mkdir()
        (bench.folder / "wheels" / chosen).touch()
        return ""

    monkeypatch.setattr(installs, "pip", pip)
    monkeypatch.setattr(installs.Bench, "venv", lambda bench, name: Path(sys.executable))
    made = tmp_path / "made"
    bench = installs.Bench(Path(sys.executable), made / SDIST, made / PURE, tmp_path, made)
    if chosen == PURE:
        with pytest.raises(installs.InstallError, match="has no compiled wheel for"):
            bench.compiled()
    else:
        assert bench.compiled() == bench.compiled() == tmp_path / "wheels" / chosen
    (arguments,) = asked
    assert arguments[0] == "download" and {"--no-index", str(made)} <= set(arguments)
