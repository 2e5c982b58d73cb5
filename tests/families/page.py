"""docs/families.md, made by the sweep: what works on which family, by which path, and what is refused and why.

python tests/families/page.py > docs/families.md        all families, a few minutes
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "families.md"

_OPENING = """\
# Families

What Layerscope does on each family of causal language models that transformers {version} knows. The page is printed by
the sweep in `tests/families/` (`python tests/families/page.py > docs/families.md`); `make test-all` fails where it is
no longer true. No family is known to the program by name: the load check tries every model as it is loaded.

Each family is tried on a small random model of its own configuration class, in its default shape with every layer type,
at {lengths} tokens. Windows (6), top-k (16 to 20) and original lengths of scaled positions (16) lie below that. Tried
are, in float32:

- states of the residual stream at every depth, against hooks on whole passes under the model's own attention;
- patched states by both paths, against a loop of such passes: within 1e-5 in probability;
- an attention edge cut: the same by both paths, and without effect (1e-5) where only another token could have read it;
- attention rows: at most 1 (what is missing is a learned sink), equal to the model's own `output_attentions` where it
  gives them, and head outputs that are these rows times the values;
- truncated contexts: a state whose whole context is kept is the state itself, one with a short context is that of a run
  over it alone;
- the logit lens at the last depth: the model's own probabilities;

and in bfloat16 that branches are off by at most 1.5 times what whole passes are off by. What cannot be done right is
refused by name, and everything that does not rest on it still works. *Branches* compute only what a patch changes;
*whole passes* give the same numbers more slowly.

What can be refused: `attn_out` and `mlp_out` (vectors added by attention and MLP, which window restoration needs),
attention (patterns, head outputs, knockout), the logit lens, states, truncated contexts.
"""

_NAMES = {
    "pattern": "attention",
    "head_out": "attention",
    "attention knockout": "attention",
    "unembed": "logit lens",
}
_PATHS = {
    "branches": "By branches",
    "whole passes": "By whole passes",
    "refused": "Refused",
    "left out": "Not tried",
}


def row(name: str, what: str, outcome: object) -> str:
    """One family's line in the page."""
    refused: dict[str, list[str]] = {}
    for site, why in sorted(outcome.sites.items()):
        why = why.removesuffix("; whole forward passes are taken")
        refused.setdefault(why, []).append(_NAMES.get(site, site))
    if outcome.refused:
        return f"| {name} | {what} | {_cell(outcome.refused)} |"
    parts = [f"{', '.join(dict.fromkeys(sites))}: {_cell(why)}" for why, sites in refused.items()]
    return f"| {name} | {what} | {'; '.join(parts) or 'nothing'} |"


def _cell(words: str) -> str:
    return words.replace("|", "\\|").replace("<", "&lt;")


def page(rows: Mapping[str, Iterable[str]], lengths: Iterable[int], version: str) -> str:
    """The whole page, from the lines of each section."""
    text = [_OPENING.format(version=version, lengths=" and ".join(map(str, lengths)))]
    for path, title in _PATHS.items():
        lines = sorted(rows.get(path, ()))
        if not lines:
            continue
        column = "not available, and why" if path in ("branches", "whole passes") else "why"
        text += [
            f"\n## {title} ({len(lines)})\n",
            f"| family | model | {column} |",
            "| --- | --- | --- |",
            *lines,
        ]
    return "\n".join(text) + "\n"


def main() -> None:
    """Run the sweep and print the page; what goes wrong is said on stderr and fails."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    import torch
    import transformers

    from families import configurations, trials

    torch.set_num_threads(1)
    rows: dict[str, list[str]] = {}
    wrong = 0
    for name, case in configurations.cases().items():
        if isinstance(case, str):
            rows.setdefault("left out", []).append(f"| {name} |  | {case} |")
            continue
        outcome = trials.try_case(case)
        rows.setdefault("refused" if outcome.refused else outcome.path, []).append(
            row(name, case.model, outcome)
        )
        for line in outcome.wrong:
            wrong += 1
            print(f"{name}: {line}", file=sys.stderr)
    print(page(rows, trials.LENGTHS, transformers.__version__), end="")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
