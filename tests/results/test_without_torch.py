"""Reading needs neither torch nor transformers: tried in a process where importing them fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

BLOCKED = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers", "tokenizers", "safetensors"):
            raise ImportError(f"{name} was imported")
sys.meta_path.insert(0, Refuse())
"""


def without_torch(code: str, where: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONWARNINGS": "error", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", BLOCKED + code], capture_output=True, text=True, cwd=where, env=environment
    )


def test_show_list_export_and_report_work_without_torch(saved: Path, tmp_path: Path) -> None:
    code = f"""
from layerscope.cli import cli
for words in (["show", {str(saved)!r}], ["list", "runs", "--out", {str(saved.parent)!r}], ["list"],
              ["export", {str(saved)!r}, "--out", "tables"], ["report", {str(saved)!r}, "--out", "page"]):
    cli(words, standalone_mode=False)
"""
    done = without_torch(code, tmp_path)

    assert done.returncode == 0, done.stderr
    assert "of 4 prompts used" in done.stdout
    assert (tmp_path / "tables" / "prompt.csv").is_file()
    assert "Which states carry" in (tmp_path / "page" / "report.html").read_text(encoding="utf-8")


def test_a_result_is_opened_and_drawn_from_python_without_torch(saved: Path, tmp_path: Path) -> None:
    code = f"""
import layerscope as ls
result = ls.open_run({str(saved)!r}).result()
print(result.sizes["prompt"], len(ls.draw(result)) > 0)
"""
    done = without_torch(code, tmp_path)

    assert (done.returncode, done.stdout) == (0, "4 True\n"), done.stderr
