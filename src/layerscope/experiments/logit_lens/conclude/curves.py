"""Groups of tokens and prompts, what is averaged of each, and one curve of one group."""

from __future__ import annotations

import numpy as np
import xarray as xr

from layerscope.evidence.groups import Group
from layerscope.experiments.logit_lens.measure import MEASURED
from layerscope.maths.leading import first_leads, settled
from layerscope.results.escaping import stored

CURVES = {
    "kl": ("divergence from the final distribution", "nat"),
    "log_probability": ("log-probability of the answer", "nat"),
    "probability": ("probability of the answer", "1"),
    "log_rank": ("rank of the answer (geometric mean)", "1"),
    "leads": ("share of answers that lead", "1"),
    "other_log_probability": ("log-probability of another answer", "nat"),
    "next_log_probability": ("log-probability of the text's own next token", "nat"),
}
DEPTHS = {"first_leads": "the answer first leads", "settled": "the answer is settled"}


def quantities(samples: xr.Dataset, prefix: str) -> Group:
    """Everything that is averaged: [token or prompt, lens, depth], or without depth."""
    read = {name: samples[f"{prefix}{name}"].values.astype(np.float64) for name in MEASURED}
    return {
        "kl": read["kl"],
        "log_probability": read["log_probability"],
        "probability": np.exp(read["log_probability"]),
        "log_rank": np.log10(read["rank"]),
        "leads": (read["rank"] == 1).astype(np.float64),
        "other_log_probability": read["other_log_probability"],
        "next_log_probability": read["next_log_probability"],
        "first_leads": first_leads(read["rank"]),
        "settled": settled(read["rank"]),
        "kl_to_average": samples[f"{prefix}kl_to_average"].values.astype(np.float64),
    }


SURPRISAL = ("surprisal, −ln p", "nat")


def surprisal(result: xr.Dataset, group: str, name: str, lens: str = "logit lens") -> xr.Dataset:
    """As `curve`, of a log-probability without its sign: above 0, so that a log axis can hold it."""
    found = -curve(result, group, name, lens).drop_vars("n")
    turned = found.rename(low="high", high="low").assign(n=curve(result, group, name, lens).n)
    turned["value"].attrs = dict(zip(("long_name", "units"), SURPRISAL, strict=True))
    return turned


def curve(result: xr.Dataset, group: str, name: str, lens: str = "logit lens") -> xr.Dataset:
    """`value`, `low`, `high`, `n` of one quantity of one group over depth; ranks as ranks."""
    which = {"group": stored(group), "quantity": name, "lens": lens}
    columns = {"value": "curve", "low": "curve_low", "high": "curve_high", "n": "curve_n"}
    found = xr.Dataset({to: result[of].sel(which).reset_coords(drop=True) for to, of in columns.items()})
    if name == "log_rank":
        for part in ("value", "low", "high"):
            found[part] = 10 ** found[part]
    long_name, units = CURVES[name]
    found["value"].attrs = {"long_name": long_name, "units": units}
    return found
