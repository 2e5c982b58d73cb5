"""What is installed must be what lies in src: a build tool leaves git-ignored files out without a word."""

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_the_wheel_holds_every_file_of_the_package(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(tmp_path),
        str(ROOT),
    ]
    subprocess.run(command, check=True, capture_output=True)

    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        inside = {name for name in wheel.namelist() if name.startswith("layerscope/")}
    expected = {
        path.relative_to(ROOT / "src").as_posix()
        for path in (ROOT / "src" / "layerscope").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith(".")
    }
    example = ROOT / "examples" / "layerscope-state-growth"
    expected |= {
        f"layerscope/bundled/example/{path.relative_to(example).as_posix()}"
        for path in example.rglob("*")
        if path.is_file() and not any("cache" in part for part in path.relative_to(example).parts)
    }
    assert inside == expected
    assert "layerscope/bundled/example/pyproject.toml" in inside
    assert "layerscope/runs/plain.py" in inside
    assert "layerscope/bundled/prompts/english.jsonl" in inside
    assert any(name.endswith(".html.j2") for name in inside)
