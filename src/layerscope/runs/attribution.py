"""Estimates of what exchanging an activation would do, from gradients: one forward, and few backward passes.

To first order, an activation a of the base run that is exchanged for the other run's a' changes a number
read from the logits by (a' − a)·∂number/∂a. One backward pass gives that for every site, block, token and
head at once, where the exact answer takes a run for each. It is a screen, not a result, and it has two known
ways to miss what matters:

- Attention saturates. Where a query looks at one key with nearly all its weight, the softmax has almost no
  gradient, however far another query or key would turn it. So for queries and keys the pattern is computed
  anew, exactly, and only what follows the head's output is taken to first order.
- Effects cancel. Two routes to the answer whose gradients are equal and opposite sum to nothing. So the
  backward pass is repeated with the gradient stopped at what one block adds, block by block, and the
  absolute estimates are averaged (GradDrop).

The model runs by its own code; nothing of it is written again.

Source: Nanda 2023, "Attribution Patching"; Kramár et al. 2024, "AtP*: An efficient and scalable method for
localizing LLM behaviour to components", sections 3.1 and 3.2.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from layerscope.errors import LayerscopeError
from layerscope.models.attention import AttentionCall, Replacement, attend, replaced
from layerscope.models.hooks import Change, at_depth, on_output
from layerscope.models.layered import LayeredModel
from layerscope.models.memory import within_memory
from layerscope.models.sites import Site
from layerscope.runs.edits import ADDITIONS, IN_ATTENTION, PutSite
from layerscope.runs.reading import added_by
from layerscope.runs.recordings import BaseRun, Recording, record

Number = Callable[[Tensor], Tensor]
"""Turns logits [run read vocabulary] into one number for each run [run], by differentiable steps."""

RECOMPUTED = ("q", "k")
_PATTERN_BYTES = 2**29
"""Bound on the gradients of attention patterns that are held for all stopped blocks together."""


@dataclass
class Attribution:
    """Estimated changes of the number, by site.

    Shapes: "state" [row depth token], "attn_out" and "mlp_out" [row layer token], "head_out" and "q"
    [row layer token head], "k" and "v" [row layer token kv_head]; float32, on the CPU. A row is a row of
    the base run or of the other one, whichever has more.

    Attributes:
        plain: the difference times the gradient.
        recomputed: of "q" and "k", with the attention pattern computed anew.
        dropped: mean of the absolute estimates with each block's contribution stopped in turn ("q" and "k" with
            the pattern computed anew). Of sites inside a block, its own block is left out of the mean, since
            stopping it leaves them nothing. Empty unless asked for.
    """

    plain: dict[str, Tensor] = field(default_factory=dict)
    recomputed: dict[str, Tensor] = field(default_factory=dict)
    dropped: dict[str, Tensor] = field(default_factory=dict)


def attributable(model: LayeredModel) -> tuple[PutSite, ...]:
    """The sites whose exchange can be estimated on this model: those that the load check allows in every block."""
    sites: list[PutSite] = ["state"]
    parts = {"attn_out": "attention", "mlp_out": "mlp"}
    for site in get_args(PutSite)[1:]:
        if site in model.refused:
            continue
        if site in parts:
            there = all(one is not None and getattr(one, parts[site]) for one in model.additions)
        else:
            there = all(module is not None for module in model.attention_modules)
        if there:
            sites.append(site)
    return tuple(sites)


def attribute(
    model: LayeredModel,
    *,
    base: BaseRun,
    other: BaseRun,
    number: Number,
    read_last: int = 1,
    sites: Collection[str] = ("state",),
    drop: bool = False,
    tokens_per_pass: int = 2048,
) -> Attribution:
    """Estimate what exchanging each activation of the base run for the other run's would change.

    Args:
        model: the model.
        base: the run that is changed, at whose activations gradients are taken.
        other: the run that activations come from; as many rows, or one of the two has a single row.
        number: what is read from the logits.
        read_last: how many of the last positions are read.
        sites: which activations.
        drop: also stop each block's contribution in turn.
        tokens_per_pass: bound on the tokens of one pass. Where the device's memory does not hold so many, it is
            halved until it does, and that is kept in `model.halvings`.

    Raises:
        LayerscopeError: a site that the load check refused; `drop` on a model that adds no vectors that could
            be stopped; rows that do not match; a number without gradient.
    """
    for site in sorted({*sites} - {"state"}) + (["attn_out", "mlp_out"] if drop else []):
        model.need(site)
    if base.rows != other.rows and min(base.rows, other.rows) > 1:
        raise LayerscopeError(
            "rows of the two runs do not match",
            found=f"{base.rows} and {other.rows}",
            expected="as many rows, or one",
            hint="BaseRun.of(ids) is a run of one row",
        )

    def attempt(tokens: int) -> Attribution:
        pairs = _pairs(model, base, other, sites, drop, tokens)
        return _joined([_attribute(model, *pair, number, read_last, sites, drop) for pair in pairs])

    return within_memory(model, attempt, tokens_per_pass, least=base.tokens)


def _pairs(
    model: LayeredModel,
    base: BaseRun,
    other: BaseRun,
    sites: Collection[str],
    drop: bool,
    tokens_per_pass: int,
) -> Iterator[tuple[BaseRun, BaseRun]]:
    """Rows of both runs that are taken together."""
    rows, tokens = max(base.rows, other.rows), base.tokens
    at_once = max(1, tokens_per_pass // tokens)
    if set(RECOMPUTED) & set(sites):
        passes = 1 + drop * model.n_layers
        of_a_row = 4 * passes * model.n_layers * (model.facts.n_heads or 1) * tokens**2
        at_once = max(1, min(at_once, _PATTERN_BYTES // of_a_row))
    for start in range(0, rows, at_once):
        yield _rows(base, start, start + at_once), _rows(other, start, start + at_once)


def _rows(run: BaseRun, start: int, stop: int) -> BaseRun:
    return replace(
        run,
        ids=run.ids if len(run.ids) == 1 else run.ids[start:stop],
        noise=run.noise if run.noise is None or len(run.noise) == 1 else run.noise[start:stop],
    )


def _joined(parts: list[Attribution]) -> Attribution:
    return Attribution(
        **{
            kind: {
                site: torch.cat([getattr(p, kind)[site] for p in parts]) for site in getattr(parts[0], kind)
            }
            for kind in ("plain", "recomputed", "dropped")
        }
    )


@torch.enable_grad()
def _attribute(
    model: LayeredModel,
    base: BaseRun,
    other: BaseRun,
    number: Number,
    read_last: int,
    sites: Collection[str],
    drop: bool,
) -> Attribution:
    recording = record(model, other, keep={*sites} - {"state"})
    tape = _Tape(model, base, sites, drop)
    value = number(tape.logits()[:, -read_last:]).sum()
    if not value.requires_grad:
        raise LayerscopeError(
            "this number has no gradient",
            found="a value that does not depend on the logits by differentiable steps",
            expected="torch operations on the logits, without no_grad, detach, argmax or numpy",
            hint="probability, log_probability and logit_difference have gradients",
        )
    contraction = _Contraction(tape, recording)
    found = Attribution()
    for blocked in (None, *(range(model.n_layers) if drop else ())):
        contraction.add(tape.gradients(value, blocked=blocked), blocked)
    del value
    found.plain, recomputed = contraction.plain, contraction.recomputed()
    found.recomputed = {site: estimates[0] for site, estimates in recomputed.items()}
    if drop:
        sums = contraction.sums | {site: estimates[1:].abs().sum(0) for site, estimates in recomputed.items()}
        for site, total in sums.items():
            blocks = model.n_layers - (site != "state")
            best = found.recomputed.get(site, found.plain[site])
            found.dropped[site] = total / blocks if blocks else best.abs()
    return found


class _Tape:
    """One forward pass of a base run whose activations are kept with their graph.

    Every activation is handed on as a copy, so that a block that writes into what it is given leaves the
    kept one, at which the gradient is taken, alone.
    """

    def __init__(self, model: LayeredModel, run: BaseRun, sites: Collection[str], drop: bool) -> None:
        self.model, self.run, self.sites, self.drop = model, run, sites, drop
        self.kept: dict[tuple[str, int], Tensor] = {}
        self.factors: dict[tuple[str, int], float] = {}
        self.calls: dict[int, AttentionCall] = {}
        self.patterns: dict[int, Tensor] = {}
        self._blocked: int | None = None

    def logits(self) -> Tensor:
        """Logits at every position [row token vocabulary]."""
        model = self.model
        model.module.eval()
        with ExitStack() as stack:
            stack.enter_context(torch.enable_grad())
            stack.enter_context(at_depth(model, self._states()))
            for layer, addition in enumerate(model.additions):
                if addition is None:
                    continue
                for site, name in zip(ADDITIONS, (addition.attention, addition.mlp), strict=True):
                    if name is not None and (self.drop or site in self.sites):
                        stack.enter_context(self._added(site, layer))
            if set(self.sites) & set(IN_ATTENTION):
                stack.enter_context(replaced(model.module, self._attention()))
            ids = self.run.batch().to(model.device)
            # Explicit mask and no cache, as in LayeredModel.logits, which allows no gradient.
            logits: Tensor = model.module(ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
        return logits

    def gradients(self, value: Tensor, *, blocked: int | None) -> dict[tuple[str, int], Tensor]:
        """Gradient at every kept activation, with what one block adds held fixed."""
        self._blocked = blocked
        found = torch.autograd.grad(value, list(self.kept.values()), retain_graph=True, allow_unused=True)
        return {
            key: torch.zeros_like(kept) if gradient is None else gradient
            for (key, kept), gradient in zip(self.kept.items(), found, strict=True)
        }

    def _states(self) -> dict[int, Change]:
        # Depth 0 is where the graph begins, asked for or not: no weight needs a gradient.
        depths = range(self.model.n_layers + 1) if "state" in self.sites else range(1)
        return {depth: self._state(depth) for depth in depths}

    def _state(self, depth: int) -> Change:
        def change(stream: Tensor) -> Tensor:
            if depth == 0:
                stream = self.run.start(stream).detach().requires_grad_()
            if "state" in self.sites:
                self.kept["state", depth] = stream
            return stream.clone()

        return change

    def _added(self, site: str, layer: int) -> ExitStack:
        module, self.factors[site, layer] = added_by(self.model, Site(site, layer))

        def stop(gradient: Tensor) -> Tensor | None:
            return gradient * 0 if self._blocked == layer else None

        def change(output: Tensor) -> Tensor:
            if site in self.sites:
                self.kept[site, layer] = output
            passed = output.clone()
            if self.drop:
                passed.register_hook(stop)  # type: ignore[no-untyped-call]
            return passed

        stack = ExitStack()
        stack.enter_context(on_output(module, change))
        return stack

    def _attention(self) -> dict[nn.Module, Replacement]:
        def keeper(layer: int) -> Replacement:
            def compute(call: AttentionCall) -> Tensor:
                copies = {site: getattr(call, site).clone() for site in ("q", "k", "v")}
                seen = attend(replace(call, **copies))
                self.calls[layer] = replace(
                    call, **{site: getattr(call, site).detach() for site in ("q", "k", "v")}
                )
                self.patterns[layer] = seen.pattern.detach()
                inside = {"q": call.q, "k": call.k, "v": call.v, "head_out": seen.head_out}
                for site, tensor in inside.items():
                    if site in self.sites or (site == "head_out" and set(RECOMPUTED) & set(self.sites)):
                        self.kept[site, layer] = tensor
                return seen.head_out.clone()

            return compute

        modules = enumerate(self.model.attention_modules)
        return {module: keeper(layer) for layer, module in modules if module is not None}


class _Contraction:
    """Differences times gradients, summed as the backward passes come in.

    Attributes:
        plain: estimates by the whole gradient.
        sums: sums of absolute estimates over the stopped blocks, for sites whose pattern is not computed anew.
    """

    def __init__(self, tape: _Tape, other: Recording) -> None:
        self.tape, self.other = tape, other
        self.rows = max(tape.run.rows, other.run.rows)
        self.plain: dict[str, Tensor] = {}
        self.sums: dict[str, Tensor] = {}
        self._of_patterns: dict[int, list[Tensor]] = {layer: [] for layer in tape.calls}

    def add(self, gradients: dict[tuple[str, int], Tensor], blocked: int | None) -> None:
        """Take the gradients of one backward pass."""
        for site in self.tape.sites:
            if blocked is not None and site in RECOMPUTED:
                continue
            layers = sorted(layer for name, layer in self.tape.kept if name == site)
            estimates = torch.stack([self._estimate(site, layer, gradients) for layer in layers], dim=1)
            if blocked is None:
                self.plain[site] = estimates
            else:
                self.sums[site] = self.sums.get(site, 0) + estimates.abs()
        if set(RECOMPUTED) & set(self.tape.sites):
            for layer, parts in self._of_patterns.items():
                parts.append(self._of_pattern(layer, gradients["head_out", layer]))

    def recomputed(self) -> dict[str, Tensor]:
        """Estimates with the pattern computed anew, of all backward passes [pass row layer token head]."""
        changes = {"q": self._queries, "k": self._keys}
        return {
            site: torch.stack([changes[site](layer) for layer in sorted(self._of_patterns)], dim=2)
            for site in RECOMPUTED
            if site in self.tape.sites
        }

    def _estimate(self, site: str, layer: int, gradients: dict[tuple[str, int], Tensor]) -> Tensor:
        """[row token], or [row token head]."""
        factor = self.tape.factors.get((site, layer), 1.0)
        ours, gradient = self.tape.kept[site, layer].detach(), gradients[site, layer]
        wide = torch.promote_types(ours.dtype, torch.float32)
        theirs = self.other.values(site, layer).to(ours.device, wide)
        # Some modules see their tokens as one flat row.
        shape = (self.tape.run.rows, *theirs.shape[1:])
        ours, gradient = ours.to(wide).reshape(shape) * factor, gradient.to(wide).reshape(shape) / factor
        estimate = ((theirs - ours) * gradient).sum(-1).float()
        return (estimate.transpose(1, 2) if site in IN_ATTENTION else estimate).cpu()

    def _of_pattern(self, layer: int, gradient: Tensor) -> Tensor:
        """What one more share of a key's value in a head's output would change [row head query key]."""
        v = self.tape.calls[layer].v.float()
        rows, heads, tokens, width = gradient.shape
        grouped = gradient.float().reshape(rows, v.shape[1], -1, tokens, width)
        return torch.matmul(grouped, v[:, :, None].transpose(-1, -2)).reshape(rows, heads, tokens, -1)

    def _queries(self, layer: int) -> Tensor:
        change = self._pattern(layer, q=self._theirs("q", layer)) - self.tape.patterns[layer]
        effects = torch.einsum("rhts,prhts->prth", change, self._all_passes(layer))
        return effects.cpu()

    def _keys(self, layer: int) -> Tensor:
        ours, theirs = self.tape.calls[layer].k, self._theirs("k", layer)
        of_patterns, effects = self._all_passes(layer), []
        for token in range(ours.shape[2]):
            k = ours.expand(self.rows, *ours.shape[1:]).clone()
            k[:, :, token] = theirs[:, :, token]
            change = self._pattern(layer, k=k) - self.tape.patterns[layer]
            of_heads = torch.einsum("rhts,prhts->prh", change, of_patterns)
            effects.append(of_heads.reshape(*of_heads.shape[:2], k.shape[1], -1).sum(-1))
        return torch.stack(effects, dim=2).cpu()

    def _theirs(self, site: str, layer: int) -> Tensor:
        return self.other.values(site, layer).to(self.tape.calls[layer].q)

    @torch.no_grad()
    def _pattern(self, layer: int, **exchanged: Tensor) -> Tensor:
        """The model's own attention pattern with other queries or keys [row head query key]."""
        call = self.tape.calls[layer]
        sites = {site: exchanged.get(site, getattr(call, site)) for site in ("q", "k", "v")}
        sites = {site: x.expand(self.rows, *x.shape[1:]) for site, x in sites.items()}
        return attend(replace(call, **sites)).pattern

    def _all_passes(self, layer: int) -> Float[Tensor, "pass row head query key"]:
        passes = torch.stack(self._of_patterns[layer])
        return passes.expand(-1, self.rows, *passes.shape[2:])
