"""The generator: a mistake in the specification is named with its file."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]

MODULE = '[module]\nname = "kong.a"\nsummary = "It."\nsource = "kong/pdk/a.lua"\n'
FUNCTION = '["kong.a.f"]\nsummary = "It."\nphases = "all"\nexample = "pass"\n'


@pytest.fixture
def spec(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    if sys.version_info < (3, 11):
        pytest.importorskip("tomli")
    # Behind the installed package, which is the one to be tested.
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT)])
    return importlib.import_module("pdkgen.spec")


def test_what_is_right(spec: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "kong.a.toml").write_text(MODULE + FUNCTION)
    assert [one.name for one in spec.load(tmp_path).functions] == ["kong.a.f"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("\xff", "utf-8"),
        ("x = ]", "line 1"),
        (FUNCTION, "'module' is missing"),
        ('module = "kong.a"', "module must be a table, got 'kong.a'"),
        (MODULE.replace("summary", "#") + FUNCTION, "'summary' is missing"),
        ("z = 1\n" + MODULE, "z must be a table, got 1"),
        (MODULE + FUNCTION.replace("phases", "#"), "kong.a.f: 'phases' is missing"),
        (MODULE + FUNCTION + 'params = ["x"]', "kong.a.f: a parameter must be a table, got 'x'"),
        (MODULE + FUNCTION + "returns = 5", "kong.a.f: returns must be of type str, got 5"),
        (
            MODULE + FUNCTION + 'params = [{name = "a", type = "string", text = "", min = "1"}]',
            "kong.a.f: a parameter: min must be of type int, got '1'",
        ),
        (
            MODULE + FUNCTION + 'params = [{name = "a", type = "string", text = "A."}, '
            '{name = "a", type = "string", text = "B."}]',
            "kong.a.f: two parameters have the same name",
        ),
    ],
)
def test_what_is_wrong(spec: ModuleType, tmp_path: Path, content: str, problem: str) -> None:
    (tmp_path / "kong.a.toml").write_bytes(content.encode("latin-1"))
    with pytest.raises(spec.SpecError) as error:
        spec.load(tmp_path)
    assert str(error.value).startswith("kong.a.toml: ") and problem in str(error.value)


def test_a_record_without_fields(spec: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "types.toml").write_text('[Thing]\nsummary = "It."\n')
    with pytest.raises(spec.SpecError, match=r"^types.toml: Thing: fields is missing$"):
        spec.load(tmp_path)
