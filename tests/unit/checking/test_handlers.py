"""Methods that are meant as handlers and that Kong never calls."""

from __future__ import annotations

from pathlib import Path

import pytest

from kong_pdk.checking.handlers import find_unreached


def found(folder: Path, methods: str) -> list[str]:
    path = folder / "plugin.py"
    body = "".join(f"    def {name}: pass\n" for name in methods.split("; "))
    path.write_text(f"class Plugin:\n{body}")
    return [finding.text for finding in find_unreached(str(path), "Plugin")]


@pytest.mark.parametrize(
    ("method", "phase"),
    [("acess", "access"), ("Access", "access"), ("LOG", "log"), ("respone", "response"),
     ("rewite", "rewrite"), ("pre_read", "preread"), ("certificates", "certificate")],
)  # fmt: skip
def test_a_misspelt_phase(tmp_path: Path, method: str, phase: str) -> None:
    (text,) = found(tmp_path, f"{method}(self, kong)")
    assert text.startswith(f"{method} is no phase")
    assert text.endswith(f"did you mean {phase}?")


@pytest.mark.parametrize("phase", ["header_filter", "body_filter", "init_worker", "configure"])
def test_a_phase_of_kongs_for_lua_only(tmp_path: Path, phase: str) -> None:
    (text,) = found(tmp_path, f"{phase}(self, kong)")
    assert text.startswith(f"Kong does not call plugin servers in {phase}")


@pytest.mark.parametrize(
    "methods",
    ["access(self, kong); log(self, kong)", "close(self)", "_acess(self)", "process(self)",
     "success(self)", "connect(self)", "logs(self): self.logs()  #; access(self)"],
)  # fmt: skip
def test_what_is_none_of_these(tmp_path: Path, methods: str) -> None:
    assert found(tmp_path, methods) == []
