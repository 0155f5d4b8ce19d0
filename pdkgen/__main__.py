"""``python -m pdkgen [--check]``; see the package."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from . import cli, reference, spec, stubs, table

ROOT = Path(__file__).resolve().parent.parent


def outputs(found: spec.Spec) -> dict[str, str]:
    """Every generated file, by its path in the repository."""
    pdk = "kong_pdk/pdk"
    return {
        f"{pdk}/_table.py": table.table(found),
        f"{pdk}/types.py": stubs.types(found),
        f"{pdk}/kong.pyi": stubs.stub(found, "kong"),
        f"{pdk}/python_style.pyi": stubs.stub(found, "python_style"),
        **{f"docs/reference/{name}": page for name, page in reference.pages(found).items()},
        "docs/reference/cli.md": cli.page(),
    }


def main() -> int:
    """Write or check; the exit status is 1 if something is not as it should be."""
    parser = argparse.ArgumentParser(prog="pdkgen", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if needed")
    check = parser.parse_args().check
    try:
        wanted = outputs(spec.load())
    except spec.SpecError as exc:
        print(f"pdkgen: {exc}", file=sys.stderr)
        return 1
    folder = ROOT / "docs/reference"
    stale = [
        path for path in folder.glob("*.md")
        if f"docs/reference/{path.name}" not in wanted
        and path.read_text(encoding="utf-8").startswith(reference.NOTE)  # else written by hand
    ]  # fmt: skip
    changed = [
        name for name, content in wanted.items()
        if not (ROOT / name).exists() or (ROOT / name).read_text(encoding="utf-8") != content
    ]  # fmt: skip
    if check:
        for name in [*changed, *(str(path.relative_to(ROOT)) for path in stale)]:
            print(f"{name} is not what pdkgen/spec gives: run python3 dev.py generate")
        return 1 if changed or stale else 0
    folder.mkdir(parents=True, exist_ok=True)
    for path in stale:
        path.unlink()
    for name in changed:
        (ROOT / name).write_text(wanted[name], encoding="utf-8")
        print(f"wrote {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
