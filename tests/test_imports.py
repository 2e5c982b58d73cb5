"""Nobody waits for a library that he does not need: which heavy ones each way in may import."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = (
    "accelerate", "conllu", "datasets", "gguf", "h5py", "jinja2", "matplotlib", "numpy", "pandas", "plotly", "pydantic",
    "pyarrow", "ray", "scipy", "scipy.stats", "sklearn", "statsmodels", "sympy", "torch", "transformers", "xarray",
)  # fmt: skip
"""Each takes from a twentieth of a second to two seconds to import."""

OF_XARRAY = {"numpy", "pandas", "pyarrow", "pydantic", "xarray"}
OF_TORCH = {"accelerate", "jinja2", "numpy", "scipy", "sympy", "torch", "transformers"}
"""transformers imports scipy.optimize, accelerate and jinja2 by itself, torch sympy."""

IN_PYTHON = {
    "import layerscope": set(),
    "import layerscope; layerscope.load_prompts('english')": {"pydantic"},
    "import layerscope; layerscope.run, layerscope.trace, layerscope.open_run": OF_XARRAY,
    "import layerscope as ls; ls.trace('bundled', 'The *queen* of the', samples=1, positions='rows')": (
        OF_XARRAY | OF_TORCH | {"plotly"}
    ),
}
COMMANDS = {
    "--help": set(),
    "run --help": {"pydantic"},
    "list experiments": {"pydantic"},
    "list runs": OF_XARRAY,
}


def imported(*arguments: str) -> set[str]:
    """Heavy libraries that a fresh Python has imported by the end of this."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments], capture_output=True, text=True, check=True
    )
    every = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "|" in line}
    assert "encodings" in every
    return every & set(HEAVY)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_imports_what_it_needs_and_nothing_heavier(command: str) -> None:
    assert imported("-m", "layerscope", *command.split()) <= COMMANDS[command]


@pytest.mark.parametrize("code", IN_PYTHON)
def test_a_line_of_python_imports_what_it_needs_and_nothing_heavier(code: str) -> None:
    assert imported("-c", code) <= IN_PYTHON[code]
