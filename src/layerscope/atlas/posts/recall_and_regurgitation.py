"""Megan Kinniment, "Recall and Regurgitation in GPT2" (3 October 2022): its causal traces and what is near them.

Depths were counted as the layer into which a state is put, of 48; here they are fractions of depth. The post's noise of
0.5 is about 11 standard deviations of GPT-2 XL's embedding entries; 0.1, 0.3 and 1 are 2, 7 and 22, and ROME's is 3.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import xarray as xr

from layerscope.atlas.posts.reading import (
    DEPTH,
    between,
    by_unit,
    contrast,
    largest_of,
    layers_of,
    mean_difference,
    mean_over,
    prompts_of,
    stated,
)
from layerscope.atlas.verdicts import CannotBeDecidedError, Estimate, Part, Pinned, Post, PostClaim, Results

RECALL, SYMBOLS, PLAIN = "recall", "non-English regurgitation", "plain-English regurgitation"
LEVELS = {"0.1": 2 / 11, "ROME's": 3 / 11, "0.3": 7 / 11, "1": 22 / 11}
"""Noise levels as factors on 11 SDs, by what the post calls them."""
TRACE = Pinned.of("causal_trace", noise="11sd", noised="last", positions="rows", doses=tuple(LEVELS.values()))
INVENTED = Pinned.of("causal_trace", "invented", noise="11sd", noised="last", positions="rows")
ROME = Pinned.of("causal_trace", noise="3sd", outputs="rows", severed=True, one_by_one=True)
ATTENTION = Pinned.of("final_token_attention")
STATES = Pinned.of("hidden_states")
_QUARTER = "about a quarter of the gap between the layers published"


def _apart(first: str, second: str) -> Callable[[Results], Estimate]:
    def read(results: Results) -> Estimate:
        result = results[TRACE]
        return contrast(result, first, second, times=1 / layers_of(result), unit=DEPTH)

    return read


def _onset(results: Results) -> Estimate:
    result = results[TRACE]
    begins = result["onset"].values / layers_of(result)
    recall, symbols = (begins[prompts_of(result, name)] for name in (RECALL, SYMBOLS))
    return mean_difference(recall, symbols, unit=DEPTH)


def _inside(results: Results) -> Estimate:
    """Share of prompts that cross over between layers 8 and 35 of 48, less the nine tenths that are asked for."""
    result = results[TRACE]
    at = result["transition_layer"].values / layers_of(result)
    known = at[np.isfinite(at)]
    return mean_over(((known >= 8 / 48) & (known <= 35 / 48)).astype(float))


def _moved_by_noise(level: str) -> Callable[[Results], Estimate]:
    """Crossover of a prompt at another noise less that at the post's, within prompts."""

    def read(results: Results) -> Estimate:
        result = results[TRACE]
        other = result["dose_transition"].isel(dose=list(LEVELS).index(level)).values
        return mean_over((other - result["transition_layer"].values) / layers_of(result), unit=DEPTH)

    return read


def _harm_at_little_noise(results: Results) -> Estimate:
    result = results[TRACE]
    little, enough = (
        result["dose_harmful"].isel(dose=list(LEVELS).index(name)).values for name in ("0.1", "0.3")
    )
    return mean_over(little - enough, unit="share")


def _regression(explanation: str) -> Callable[[Results], Estimate]:
    def read(results: Results) -> Estimate:
        result = results[TRACE]
        if "regression" not in result:
            raise CannotBeDecidedError("too few prompts for a regression")
        return stated(result, "regression", times=1 / layers_of(result), unit=DEPTH, explanation=explanation)

    return read


def _late_attention(results: Results) -> Estimate:
    """Log of the last token's attention to the subject in the last third and a bit (layers 30 to 47 of 48)."""
    result = results[ATTENTION]
    late = between(result, 30 / 48, 1.0)
    values = result["prompt_attention"].sel(weighting="attention", row="noised tokens").isel(layer=late)
    logs = np.log(np.maximum(values.mean(["layer", "head"]).transpose("prompt").values, 1e-9))
    recall = prompts_of(result, RECALL)
    return mean_difference(logs[recall], logs[~recall])


def _attention_where_recall_crosses(results: Results) -> Estimate:
    result = results[ROME]
    peak = result["window_peak"].sel(site="attn_out").values + 0.5
    apart = (peak - result["transition_layer"].values) / layers_of(result)
    return mean_over(apart[prompts_of(result, RECALL)], unit=DEPTH)


def _invented(results: Results) -> Estimate:
    own, made_up = results[TRACE], results[INVENTED]
    recall = own["transition_layer"].values[prompts_of(own, RECALL)]
    return mean_difference(
        made_up["transition_layer"].values / layers_of(made_up), recall / layers_of(own), unit=DEPTH
    )


def _trickles(results: Results) -> Estimate:
    """How much later an earlier token of the subject hands over to the prompt's last token than to the subject's."""
    result = results[ROME]
    within = result["tokens_to_subject_end"].values > 0
    to_subject, to_end = (result["handover"].sel(handed_to=name).values for name in result.handed_to.values)
    gaps = np.where(within, to_end - to_subject, np.nan) / layers_of(result)
    return mean_over(by_unit(gaps, result["subject_token_prompt"].values), unit=DEPTH)


def _severed(third: int) -> Callable[[Results], Estimate]:
    def read(results: Results) -> Estimate:
        result = results[ROME]
        places = between(result, third / 3, (third + 1) / 3)
        return largest_of(
            result, "severed_loss", places, site="mlp_out", token_class_name="last subject token"
        )

    return read


def _norms(results: Results) -> Estimate:
    """Log growth of the last token's norm from the middle to before the last layer."""
    result = results[STATES]
    norm, depths = result["prompt_norm"].values, result.sizes["depth"]
    return _recall_less_others(result, np.log(norm[:, depths - 2] / norm[:, depths // 2]))


def _turns(results: Results) -> Estimate:
    """Cosine of successive steps at layers 20 to 35 of 48 less that at 10 to 20."""
    result = results[STATES]
    late, early = (
        result["prompt_turn"].isel(layer=between(result, a / 48, b / 48)).mean("layer").values
        for a, b in ((20, 35), (10, 20))
    )
    return _recall_less_others(result, late - early)


def _recall_less_others(result: xr.Dataset, values: np.ndarray) -> Estimate:
    recall = prompts_of(result, RECALL)
    return mean_difference(values[recall], values[~recall])


POST = Post(
    "recall-and-regurgitation",
    "Recall and Regurgitation in GPT2 (Megan Kinniment, 2022): causal traces",
    (
        PostClaim(
            "recall later than regurgitation",
            "Regurgitation crosses over earlier than recall.",
            "Average causal traces by prompt type",
            (
                Part(
                    "crossover, recall less non-English",
                    TRACE,
                    _apart(RECALL, SYMBOLS),
                    "above",
                    0.1,
                    _QUARTER,
                ),
            ),
            published="GPT-2 XL: layers 25-35 against 7-13 of 48, 0.42 of depth",
        ),
        PostClaim(
            "plain English between",
            "Plain-English regurgitation crosses over between the two.",
            "Average causal traces by prompt type",
            (
                Part(
                    "crossover, plain English less non-English",
                    TRACE,
                    _apart(PLAIN, SYMBOLS),
                    "above",
                    0.05,
                    _QUARTER,
                ),
                Part(
                    "crossover, recall less plain English",
                    TRACE,
                    _apart(RECALL, PLAIN),
                    "above",
                    0.05,
                    _QUARTER,
                ),
            ),
            published="GPT-2 XL: layers 15-22 of 48",
        ),
        PostClaim(
            "streak begins earlier",
            "The last token's streak begins earlier for regurgitation than for recall.",
            "First investigations",
            (
                Part(
                    "onset at the last token, recall less non-English", TRACE, _onset, "above", 0.1, _QUARTER
                ),
            ),
            reading="The streak begins where the last token's recovery passes 10% for the last time.",
        ),
        PostClaim(
            "no pickup at either end",
            "No information reaches the last token much before layer 8 nor after layer 35 of 48.",
            "Speculating on attentional patterns; the speculative picture",
            (
                Part(
                    "share of prompts that cross over there",
                    TRACE,
                    _inside,
                    "above",
                    0.9,
                    "one prompt in ten may be an exception to a tendency",
                ),
            ),
            published="GPT-2 XL: none seen outside",
        ),
        PostClaim(
            "noise level matters little",
            "Traces at noise 0.3 and 1 look like those at 0.5.",
            "Footnote 11",
            tuple(
                Part(
                    f"crossover at {level} less that at 0.5",
                    TRACE,
                    _moved_by_noise(level),
                    "within",
                    0.05,
                    "half of the smallest gap of interest between kinds of prompts",
                )
                for level in ("0.3", "1")
            ),
        ),
        PostClaim(
            "little noise breaks the normalisation",
            "At noise 0.1 some patches do harm, which upsets normalised recovery.",
            "Footnote 11",
            (
                Part(
                    "share of harmful patches, 0.1 less 0.3",
                    TRACE,
                    _harm_at_little_noise,
                    "above",
                    0.05,
                    "one patch in twenty",
                ),
            ),
        ),
        PostClaim(
            "distance matters little",
            "The number of tokens between subject and end has no or a very small effect.",
            "Attention by prompt type",
            (
                Part(
                    "crossover by token of distance",
                    TRACE,
                    _regression("distance from subject to end [tokens]"),
                    "within",
                    0.01,
                    "five tokens more would then move the crossover by less than 0.05 of depth",
                ),
            ),
            reading="Other explanations are held fixed: category and the answer's clean log-odds.",
        ),
        PostClaim(
            "confidence matters little",
            "The model's confidence in its answer does not decide the crossover.",
            "Attention by prompt type",
            (
                Part(
                    "crossover by nat of log-odds",
                    TRACE,
                    _regression("clean log-odds of the answer [nat]"),
                    "within",
                    0.01,
                    "five nats more would then move the crossover by less than 0.05 of depth",
                ),
            ),
            reading="The post leaves it open and says that it would not surprise if it had some effect.",
            other_side="Confidence has some effect, since easy prompts are mostly regurgitation.",
        ),
        PostClaim(
            "late attention for recall",
            "In later layers the last token attends more to the subject for recall than for regurgitation.",
            "Attention by prompt type",
            (
                Part(
                    "log attention to the subject in layers 30-47 of 48, recall less others",
                    ATTENTION,
                    _late_attention,
                    "above",
                    0.18,
                    "a fifth more attention",
                ),
            ),
            reading="Geometric mean over prompts of the mean over heads and layers.",
        ),
        PostClaim(
            "attention restores where recall crosses",
            "For recall, restoring attention at the last token matters most where the crossover lies.",
            "Average causal traces by prompt type, beside ROME's figure",
            (
                Part(
                    "peak of restored attention less crossover",
                    ROME,
                    _attention_where_recall_crosses,
                    "within",
                    0.1,
                    "half a window of ten layers of 48",
                ),
            ),
            published="GPT-2 XL: attention peaks at layer 32, crossover 25-35",
        ),
        PostClaim(
            "invented subjects alike",
            "Invented subjects trace like real ones.",
            "Footnote 7",
            (
                Part(
                    "crossover, invented subjects less recall",
                    TRACE,
                    _invented,
                    "within",
                    0.05,
                    "half of the smallest gap of interest between kinds of prompts",
                    (INVENTED,),
                ),
            ),
        ),
        PostClaim(
            "trickles into the subject's last token",
            "Information of a subject of several tokens passes through its last token.",
            "Multiply-tokenised words might need to be built",
            (
                Part(
                    "crossover from an earlier subject token, to the last token less to the subject's last",
                    ROME,
                    _trickles,
                    "above",
                    0.05,
                    "more than one layer of twenty",
                ),
            ),
        ),
        PostClaim(
            "early states need MLPs",
            "Without MLPs, early states lose their effect and late ones do not.",
            "MLPs and concept building (ROME's figure)",
            (
                Part(
                    "largest loss of recovery in the first third",
                    ROME,
                    _severed(0),
                    "above",
                    0.1,
                    "a tenth of the whole effect",
                ),
                Part(
                    "largest loss of recovery in the last third",
                    ROME,
                    _severed(2),
                    "within",
                    0.1,
                    "a tenth of the whole effect",
                ),
            ),
            by="Meng et al. 2022, leaned on",
        ),
        PostClaim(
            "norms grow more for recall",
            "In the second half of the model, the last token's norm grows more for recall.",
            "Rough extra bits on hidden states",
            (Part("log growth, recall less others", STATES, _norms, "above", 0.05, "a twentieth more"),),
            reading="The post adds that it may be explaining noise.",
        ),
        PostClaim(
            "states accelerate where answers move",
            "States move on in one direction at layers 10-20 for regurgitation and at 20-35 of 48 for recall.",
            "Rough extra bits on hidden states",
            (
                Part(
                    "cosine of successive steps, 20-35 less 10-20, recall less others",
                    STATES,
                    _turns,
                    "above",
                    0.02,
                    "a fiftieth of what parallel steps would have",
                ),
            ),
            reading="The post adds that it may be explaining noise.",
        ),
    ),
)
