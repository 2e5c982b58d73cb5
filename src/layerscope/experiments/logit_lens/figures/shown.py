"""The prompts that are shown whole, in pictures: top tokens by depth and position."""

from __future__ import annotations

from typing import Any

import xarray as xr

from layerscope.evidence.coordinates import groups_along
from layerscope.plots.token_table import TokenTable, token_tables
from layerscope.results.escaping import restored, stored, visible

TABLE, WHOLE = "What would the model say at each depth?", "The same at every depth and position"
_PARTS = ("top_text", "probability", "target_text", "rank", "position", "token_text")


def shown_figures(result: xr.Dataset) -> dict[str, Any]:
    """The table of each prompt that was kept, for a column and whole; nothing of a result that has none."""
    if "shown_top_text" not in result:
        return {}
    tables = [_table(result, rows) for rows in groups_along(result, "shown_prompt").values()]
    some_cut = any(int(one.cells.position[0]) for one in tables)
    cut = " Of a longer prompt the last tokens are shown." if some_cut else ""
    return {
        TABLE: token_tables(
            tables,
            column=True,
            caption="Most probable next token by logit lens, coloured by its probability; bold: what the model ends up "
            "choosing, in the last column the answer. Look for the depth from which a column stays bold.",
        ),
        WHOLE: token_tables(
            tables,
            caption="Each cell is the most probable next token if the model stopped at that depth (logit lens), read "
            "from the embeddings at the bottom to the output on top. Bold: the token that it ends up choosing there, "
            "at the last position the answer. Look for the depth from which a column stays bold, and for what leads "
            f"before. Hover: the six most probable tokens.{cut}",
        ),
    }


def _table(result: xr.Dataset, rows: Any) -> TokenTable:
    mine = result.isel(shown_token=rows)
    cells = xr.Dataset(
        {name: mine[f"shown_{name}"].variable for name in _PARTS}, coords={"depth": mine.depth.variable}
    ).rename(shown_token="token")
    answer = visible(restored(str(cells.target_text.values[-1])))
    text, name = (restored(str(mine[f"shown_{part}"].values[0])) for part in ("prompt_text", "prompt"))
    whose = "" if name == text else f" ({name})"
    return TokenTable(stored(f"{text} → {answer}{whose}"), cells)
