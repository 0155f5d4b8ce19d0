"""A target under atheris, which looks for inputs that reach new lines of the pure codec.

    python3 dev.py fuzz-guided TARGET [options of libFuzzer]

The compiled codec is not instrumented: it is compared with what the pure one says.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import atheris

with atheris.instrument_imports(include=["kong_pdk._fallback", "kong_pdk._wire", "kong_pdk.pdk"]):
    from fuzzing import codecs, corpus

CORPUS = Path(__file__).resolve().parent / "corpus"


def main() -> None:
    """Begin with the golden frames and what earlier runs have found."""
    if len(sys.argv) < 2 or sys.argv[1] not in codecs.TARGETS:
        sys.exit(f"which target? one of {', '.join(codecs.TARGETS)}")
    codecs.allow_depth()
    target: Any = codecs.TARGETS[sys.argv[1]]()
    folder = CORPUS / target.name
    folder.mkdir(parents=True, exist_ok=True)
    if target.name == "decoder":
        for index, seed in enumerate(corpus.seeds()):
            (folder / f"golden-{index}").write_bytes(seed)
    findings = Path(__file__).resolve().parent / "findings"
    findings.mkdir(exist_ok=True)
    options = [f"-artifact_prefix={findings}/{target.name}-", *sys.argv[2:], str(folder)]
    atheris.Setup([sys.argv[0], *options], target.check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
