"""Which recipe this code is: a number that goes up when a model must be made anew to go with the code.

Checkpoints and the card carry it, so that no code measures, goes on training or describes a model that
another recipe made. Recipe 1 made the first model that shipped.
"""

import re

RECIPE = 2
CODE_OF = {1: "d5f5a22"}  # where the code of earlier recipes stands: the commit


def recipe_in(card: str) -> int:
    """The recipe that a model's card names."""
    found = re.search(r"^- Recipe: (\d+)\b", card, re.MULTILINE)
    if not found:
        raise SystemExit("The model's card has no line '- Recipe: NUMBER': which code made it is not known.")
    return int(found[1])


def refuse_other(recipe: int, what: str) -> None:
    """Ends the program where `what` was made by another recipe than this code."""
    if recipe != RECIPE:
        where = f", whose code stands at commit {CODE_OF[recipe]}" if recipe in CODE_OF else ""
        raise SystemExit(f"{what} was made by recipe {recipe}{where}; this code is recipe {RECIPE}.")
