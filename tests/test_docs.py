"""Pages that the program prints must be what it prints now."""

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
