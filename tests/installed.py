"""Packages beside Layerscope, as an installer leaves them: real ones by pip, small ones by hand."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "examples" / "layerscope-state-growth"

QUESTION = '"""Is this a question?\n\nBeware: made for tests.\n\nSource: ours.\n"""\n'
WHOLE = (
    QUESTION
    + """
from layerscope.contract import ExperimentSettings as Settings, Stage
TAKES = {"passages"}
STAGES = (Stage("one", items=lambda *given: (), measure=lambda *given: None),)
conclude = claims = over_depth = draw = lambda *given: None
"""
)
"""An experiment that holds everything and measures nothing."""


def pip_install(package: Path, target: Path) -> Path:
    """What pip makes of a package, in a folder of its own; nothing is fetched."""
    quiet = ["--quiet", "--disable-pip-version-check", "--no-index"]
    apart = ["--no-deps", "--no-build-isolation", "--target", str(target)]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", *quiet, *apart, str(package)],
        check=True,
        capture_output=True,
    )
    return target


def by_hand(
    folder: Path,
    distribution: str,
    points: Mapping[str, str],
    modules: Mapping[str, str],
    version: str = "1.0",
) -> Path:
    """A distribution with entry points and modules, in a folder that can be put on the path."""
    about = folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
    lines = "".join(f"{name} = {module}\n" for name, module in points.items())
    (about / "entry_points.txt").write_text(f"[layerscope.experiments]\n{lines}")
    for module, source in modules.items():
        (folder / f"{module}.py").write_text(source)
    return folder


def forget(*packages: str) -> None:
    """Let modules be imported anew."""
    for name in [name for name in sys.modules if name.partition(".")[0] in packages]:
        del sys.modules[name]
