"""What the commands print: experiments, models, prompts, runs, plans and checks, as lines of text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from layerscope import experiments
from layerscope.bundled import bundled_folder, bundled_names
from layerscope.errors import LayerscopeError
from layerscope.results.escaping import restored, visible
from layerscope.results.files import typed
from layerscope.text.treebanks import load_treebank, treebank_sets
from layerscope.text.word_lists import load_words, word_sets

if TYPE_CHECKING:
    import xarray as xr

    from layerscope.contract import Claim, Experiment
    from layerscope.jobs.checking import PromptCheck, Unreadable
    from layerscope.jobs.config_plan import Cost, Means
    from layerscope.jobs.plans import Plan
    from layerscope.results.record import PlugIn, RunRecord
    from layerscope.results.store import RunFolder


def lines_of(what: str, out: Path) -> Iterator[str]:
    """The lines of `layerscope list`, but for experiments."""
    if what == "models":
        there = (bundled_folder("model") / "config.json").is_file()
        yield "bundled              " + (
            "the small model that ships with Layerscope" if there else "(not in this copy)"
        )
        yield "FOLDER               any folder with config.json, a tokenizer and .safetensors weights"
        yield "FILE.gguf            a GGUF file, dequantised as it is loaded (pip install 'layerscope[gguf]')"
        yield "HUB NAME             such as gpt2 or EleutherAI/pythia-160m; the only case that touches the network"
    elif what == "prompts":
        yield from _bundled("prompts")
        yield from _bundled("passages")
        yield from (
            f"{'treebank':<10} {name:<20} {len(load_treebank(name))} sentences" for name in treebank_sets()
        )
        yield from (f"{'words':<10} {name:<20} {len(load_words(name))} words" for name in word_sets())
    else:
        yield from _runs(out)


def line_of_experiment(name: str) -> str:
    """An experiment's name and question; one of another package says whose it is."""
    whose = experiments.whose(name)
    brought = "" if whose == "Layerscope" else f"   ({visible(whose, blanks=False)})"
    return f"{name:<20} {visible(experiments.question(name), blanks=False)}{brought}"


def _bundled(kind: str) -> Iterator[str]:
    for name in bundled_names(kind):
        file = next(bundled_folder(kind).glob(f"{name}.*"))
        with file.open(encoding="utf-8") as lines:
            yield f"{kind:<10} {name:<20} {sum(1 for _ in lines)} texts"


def _runs(out: Path) -> Iterator[str]:
    from layerscope.results.store import runs_below

    found = runs_below(out)
    for folder in found:
        try:
            record = folder.record
            model = _model(record)
            about = f"{record.asked.experiment:<18} {model:<20} {folder.path}"
            yield f"{record.state:<9} {record.created[:16]}  {about}"
        except LayerscopeError as error:
            yield f"damaged   {folder.path}: {error.problem}"
    if not found:
        yield f"no runs below {out}"


def _model(record: RunRecord) -> str:
    return visible(str(record.facts.get("name", record.asked.model)), blanks=False)


def summary_of(folder: RunFolder, *, whole: bool, claims: Sequence[Claim] | None = None) -> Iterator[str]:
    """What a run asked and found; `whole` adds settings, exclusions and provenance.

    Claims are worked out where they are not given.
    """
    record = folder.record
    experiment = experiments.load(record.asked.experiment)
    yield f"\n{record.asked.experiment} on {_model(record)}: {experiment.question}"
    if not folder.has_result:
        yield from (f"  {line}" for line in _unfinished(folder, record))
        return
    result = folder.result()
    found = claims_of(folder, result) if claims is None else claims
    yield from lines_of_result(experiment, result, found, record.all_cautions, whole=whole)
    if record.left_out:
        several = "prompts" if len(record.left_out) > 1 else "prompt"
        yield f"  {len(record.left_out)} {several} cannot be read by this model, left out"
        for name, why in record.left_out.items() if whole else ():
            yield f"    left out: {visible(name, blanks=False)}: {visible(why, blanks=False)}"
    if whole:
        yield f"  settings: {', '.join(f'{key}={value}' for key, value in record.asked.settings.items())}"
        if record.standing_first:
            yield f"  {visible(said_of_first(record), blanks=False)}"
        machine = record.machine
        yield f"  {record.facts.get('architecture')}, {record.asked.dtype}"
        yield f"  on {machine.device_name}, {machine.threads} threads"
        yield from (f"  experiment of {name} {package.version}" for name, package in machine.plugin.items())
        yield f"  measured in {record.seconds:.0f} s, at most {record.peak_bytes / 1e6:.0f} MB"
        yield from (f"  note: {note}" for note in record.notes)


def lines_of_result(
    experiment: Experiment,
    result: xr.Dataset,
    claims: Sequence[Claim],
    cautions: Sequence[str] = (),
    *,
    whole: bool,
) -> Iterator[str]:
    """What a result says: its claims, cautions (a run's own among them), and which texts were used."""
    from layerscope.results.schema import read_json

    yield from (f"  {visible(line, blanks=False)}" for line in (experiment.tell or _nothing)(result))
    for claim in claims:
        yield f"  {_claim(claim)}"
        if whole and claim.caveat:
            yield f"    ({visible(claim.caveat, blanks=False)})"
    for caution in [*read_json(result, "cautions", []), *cautions]:
        yield f"  caution: {visible(caution, blanks=False)}"
    if "left_out_because" in result:
        reasons = result.left_out_because
        dimension = reasons.dims[0]
        out = [
            (str(name), str(why))
            for name, why in zip(result[dimension].values, reasons.values, strict=True)
            if why
        ]
        yield f"  {reasons.size - len(out)} of {reasons.size} {dimension}s used"
        for name, why in out if whole else []:
            yield f"    left out: {visible(restored(name), blanks=False)}: {visible(restored(why), blanks=False)}"


def _nothing(result: xr.Dataset) -> list[str]:
    return []


def _unfinished(folder: RunFolder, record: RunRecord) -> Iterator[str]:
    if record.refused:
        first, *more = record.refused.splitlines()
        yield f"refused: {visible(first, blanks=False)}"
        yield from (visible(line, blanks=False) for line in more)
        yield f"next, once that is put right: layerscope resume {typed(folder.path)}"
    else:
        yield f"{record.state}; next: layerscope resume {typed(folder.path)}"


def said_of_first(record: RunRecord) -> str:
    """What stands first before the texts of a run, and why."""
    return (
        f"{record.asked.bos.get('text') or 'nothing'} stands first: {record.standing_first.get('reason', '')}"
    )


def claims_of(folder: RunFolder, result: xr.Dataset) -> list[Claim]:
    """What a run's result says beside its untrained twins; one of other code may lack what this code looks for."""
    from layerscope.evidence.twins import claims_beside
    from layerscope.results.twins import twins_of

    experiment = experiments.load(folder.record.asked.experiment)
    try:
        return claims_beside(experiment, result, twins_of(folder).values())
    except (LookupError, AttributeError, ValueError) as error:
        from layerscope.jobs.prepare import code_digest

        record = folder.record
        if record.machine.code == code_digest() and record.machine.plugin == experiment.plugin:
            raise
        whose = " and ".join(experiment.plugin) or "Layerscope"
        raise LayerscopeError(
            f"this result is of another version of {whose}, and this one cannot put it into words",
            found=f"code {_code(record.machine.code, record.machine.plugin)}: {type(error).__name__}: {error}",
            expected=f"a result of code {_code(code_digest(), experiment.plugin)}",
            hint="run the same command again, or `layerscope export` for the numbers that are saved",
        ) from error


def _code(own: str, plugin: Mapping[str, PlugIn]) -> str:
    return " and ".join(code[:12] for code in (own, *(package.code for package in plugin.values())))


def _claim(claim: Claim) -> str:
    numbers = ""
    if claim.stated:
        return visible(claim.text, blanks=False)
    if claim.value is not None and claim.low is not None and claim.high is not None:
        numbers = f"  [{claim.low:.3g}, {claim.high:.3g}]"
    if claim.p_adjusted is not None:
        numbers += f"  p = {claim.p_adjusted:.2g}"
    return f"{visible(claim.text, blanks=False)}{numbers}"


def lines_of_plan(name: str, plan: Plan, workers: int = 0) -> Iterator[str]:
    """A plan as a person reads it, and for some worker processes."""
    from layerscope.jobs.progress import in_words

    left = f"{in_words(plan.seconds_left)} of it left"
    if workers:
        left += f", {in_words(plan.seconds_with(workers))} with {workers} workers"
    yield f"{name}: about {in_words(plan.seconds)} of measuring, {left}; by the {plan.path} path"
    for stage in plan.stages:
        about = "" if stage.exact else "about "
        kept = f"{stage.measured} already run and kept"
        yield f"  {stage.stage:<10} {about}{stage.items} items, {in_words(stage.seconds)}; {kept}"
    yield f"  at most {plan.peak_bytes / 1e6:.0f} MB of memory, {plan.part_bytes / 1e6:.1f} MB of parts"
    if beyond := plan.beyond_memory(workers):
        yield f"  caution: {beyond}; try {'--workers 0, or ' if workers else ''}--dtype bfloat16"
    yield f"  loading and checking the model took {plan.load_seconds:.1f} s, planning {plan.took:.0f} s"
    yield f"  kept in {plan.folder}: the same run command goes on from there"


def lines_of_check(check: PromptCheck | Unreadable) -> Iterator[str]:
    """One prompt's check as a person reads it."""
    from layerscope.jobs.checking import PromptCheck

    if not isinstance(check, PromptCheck):
        yield f"{visible(check.name, blanks=False)}  left out"
        yield from (f"  - {visible(line.strip(), blanks=False)}" for line in str(check.error).splitlines())
        return
    mark = "left out" if check.left_out_because else "ok"
    yield f"{visible(check.prompt.name, blanks=False)}  [{visible(check.prompt.category, blanks=False)}]  {mark}"
    yield f"  {check.strip}"
    if not math.isnan(check.probability):
        own = " (own)" if check.prompt.own else ""
        yield f"  answer {visible(check.answer)}{own}: p = {check.probability:.3f}, rank {check.rank}"
    for constraint in check.constraints:
        sign = "+" if constraint.holds else ("-" if constraint.needed else "~")
        yield f"  {sign} {constraint.name}: {constraint.detail}"
    if check.prompt.note or check.prompt.prompt.note:
        yield f"  note: {'; '.join(filter(None, [check.prompt.prompt.note, check.prompt.note]))}"


def lines_of_cost(cost: Cost, means: Means) -> Iterator[str]:
    """What a run costs by the configuration alone."""
    from layerscope.jobs.progress import in_words

    yield f"{cost.experiment}: {cost.operations:.2g} operations, about {in_words(cost.seconds(means))}"
    for stage in cost.stages:
        told = "only a run can tell" if stage.operations is None else f"{stage.operations:.2g} operations"
        yield f"  {stage.stage:<10} {stage.items or 'some'} items, {told}"


def lines_of_costs(costs: Sequence[Cost], means: Means) -> Iterator[str]:
    """What runs cost together, with what, and whether it fits."""
    from layerscope.jobs.progress import in_words

    operations, seconds = sum(each.operations for each in costs), sum(each.seconds(means) for each in costs)
    largest = max(costs, key=means.needed_bytes)
    needed = means.needed_bytes(largest)
    yield f"all {len(costs)}: {operations:.2g} operations, about {in_words(seconds)}"
    yield f"at {means.speed:.2g} operations a second in large matrix products of each of {means.processes}"
    yield (
        f"memory: {needed / 1e9:.1f} GB, {largest.weight_bytes / 1e9:.1f} GB of weights in each of {means.held} "
        f"and at most {largest.working_bytes / 1e9:.1f} GB beside them"
    )
    if means.limit is not None:
        fits = "it fits" if needed <= means.limit.bytes else "it does not fit"
        yield f"{means.limit.whose} gives {means.limit.bytes / 1e9:.1f} GB: {fits}"
    if not largest.own_tokens:
        yield "tokens are counted by the bundled model's tokenizer: none lies beside the configuration"
