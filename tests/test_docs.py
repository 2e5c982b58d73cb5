"""Pages that the program prints must be what it prints now."""

import re
from pathlib import Path

from layerscope.cli import commands_page

ROOT = Path(__file__).resolve().parents[1]


def test_the_commands_page_is_what_the_program_prints() -> None:
    page = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")

    assert page == commands_page(), "layerscope list commands > docs/commands.md"


def test_the_readme_opens_with_the_two_commands() -> None:
    opening = (ROOT / "README.md").read_text(encoding="utf-8")[:1200]

    assert "make report" in opening
    assert "make test" in opening


def test_adding_an_experiment_shows_what_the_example_holds() -> None:
    page = (ROOT / "docs" / "adding_an_experiment.md").read_text(encoding="utf-8")
    example = ROOT / "examples" / "layerscope-state-growth"
    files = [
        path.read_text(encoding="utf-8") for path in (*example.rglob("*.py"), example / "pyproject.toml")
    ]
    shown = re.findall(r"```(?:python|toml)\n(.*?)```", page, flags=re.DOTALL)

    assert len(shown) >= 6
    assert [block for block in shown if not any(block in file for file in files)] == []


def test_adding_an_experiment_names_what_can_be_imported() -> None:
    from layerscope import contract, evidence, experiments, planted

    page = (ROOT / "docs" / "adding_an_experiment.md").read_text(encoding="utf-8")
    rows = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `layerscope")}
    for module, row in ((contract, "contract"), (evidence, "evidence"), (planted, "planted")):
        for name in re.findall(
            r"`([A-Za-z]+)`", rows[f"layerscope.{row}"].partition("|")[2].partition("|")[2]
        ):
            assert hasattr(module, name), name
    assert all(f"`{name}" in page for name in experiments._HOLDS)


def test_every_link_to_a_file_leads_to_one() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    missing = [
        f"{page.relative_to(ROOT)}: {link}"
        for page in pages
        for link in re.findall(r"\]\((?!https?:)([^)#\s]+)", page.read_text(encoding="utf-8"))
        if not (page.parent / link).exists()
    ]

    assert len(pages) > 30
    assert missing == []
