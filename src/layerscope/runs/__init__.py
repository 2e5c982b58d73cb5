"""Read and edit a running model.

Names are looked up when they are used, so that experiment files, which the report reads too, can
be imported where torch is not installed: write `from layerscope import runs`, then `runs.read_states`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from layerscope.first_use import imported_at_first_use

if TYPE_CHECKING:
    from layerscope.models.lengths import need_prefixes as need_prefixes
    from layerscope.models.lengths import prefixes_hold_to as prefixes_hold_to
    from layerscope.runs.answers import Answer as Answer
    from layerscope.runs.answers import answer_of as answer_of
    from layerscope.runs.attention_fixed import FIXED_SUMS as FIXED_SUMS
    from layerscope.runs.attention_fixed import fixed_columns as fixed_columns
    from layerscope.runs.attention_fixed import fixed_sums as fixed_sums
    from layerscope.runs.attention_questions import asked_of as asked_of
    from layerscope.runs.attention_statistics import attention_sums as attention_sums
    from layerscope.runs.attention_statistics import first_patterns as first_patterns
    from layerscope.runs.attribution import Attribution as Attribution
    from layerscope.runs.attribution import attributable as attributable
    from layerscope.runs.attribution import attribute as attribute
    from layerscope.runs.branch_check import check_branches as check_branches
    from layerscope.runs.budget import tokens_per_pass as tokens_per_pass
    from layerscope.runs.context_split import need_split as need_split
    from layerscope.runs.context_split import split_context as split_context
    from layerscope.runs.contributions import Contributions as Contributions
    from layerscope.runs.contributions import read_contributions as read_contributions
    from layerscope.runs.contributions import read_last_tokens as read_last_tokens
    from layerscope.runs.direct_attribution import DirectLogits as DirectLogits
    from layerscope.runs.direct_attribution import direct_logits as direct_logits
    from layerscope.runs.edits import Branch as Branch
    from layerscope.runs.edits import Cut as Cut
    from layerscope.runs.edits import Put as Put
    from layerscope.runs.embeddings import states_of_tokens_alone as states_of_tokens_alone
    from layerscope.runs.embeddings import token_contributions as token_contributions
    from layerscope.runs.key_activations import show_key_activations as show_key_activations
    from layerscope.runs.key_activations import top_tokens as top_tokens
    from layerscope.runs.lens import UNKNOWN as UNKNOWN
    from layerscope.runs.lens import LensReading as LensReading
    from layerscope.runs.lens import read_lens as read_lens
    from layerscope.runs.lens_table import read_lens_table as read_lens_table
    from layerscope.runs.machine import peak_bytes as peak_bytes
    from layerscope.runs.noise import corrupting_noise as corrupting_noise
    from layerscope.runs.noise import draw_number as draw_number
    from layerscope.runs.noise import gaussian_noise as gaussian_noise
    from layerscope.runs.noise import stream as stream
    from layerscope.runs.patching import record_base as record_base
    from layerscope.runs.patching import run_patched as run_patched
    from layerscope.runs.predictions import Predictions as Predictions
    from layerscope.runs.predictions import Reference as Reference
    from layerscope.runs.read_attention import attention_of_last as attention_of_last
    from layerscope.runs.read_attention import attention_of_queries as attention_of_queries
    from layerscope.runs.read_attention import attention_to_first as attention_to_first
    from layerscope.runs.reading import read_sites as read_sites
    from layerscope.runs.reading import read_states as read_states
    from layerscope.runs.recordings import BaseRun as BaseRun
    from layerscope.runs.recordings import Recording as Recording
    from layerscope.runs.recordings import record as record
    from layerscope.runs.removal import without_head_direction as without_head_direction
    from layerscope.runs.removal import without_mlp_direction as without_mlp_direction
    from layerscope.runs.replayed import ReplayedRun as ReplayedRun
    from layerscope.runs.replayed import adding_instead as adding_instead
    from layerscope.runs.state_cache import StateCache as StateCache
    from layerscope.runs.state_cache import groups as groups
    from layerscope.runs.swapped import read_swapped as read_swapped
    from layerscope.runs.swapped import swaps_exactly as swaps_exactly
    from layerscope.runs.tuned_lens import lens_digest as lens_digest
    from layerscope.runs.tuned_lens import read_tuned_lens as read_tuned_lens
    from layerscope.runs.unit_states import UnitRuns as UnitRuns
    from layerscope.runs.unit_states import mean_head_outputs as mean_head_outputs
    from layerscope.runs.unit_states import read_units as read_units
    from layerscope.runs.value_lengths import ValueLengths as ValueLengths
    from layerscope.runs.vocabulary import from_tokens as from_tokens
    from layerscope.runs.vocabulary import strongest_tokens as strongest_tokens
    from layerscope.runs.vocabulary import token_rows as token_rows
    from layerscope.runs.vocabulary import towards_tokens as towards_tokens
    from layerscope.runs.windows import FullRun as FullRun
    from layerscope.runs.windows import can_watch as can_watch
    from layerscope.runs.windows import full_run as full_run
    from layerscope.runs.windows import need_positions as need_positions
    from layerscope.runs.windows import read_moved as read_moved
    from layerscope.runs.windows import read_truncated as read_truncated
    from layerscope.runs.windows import takes_positions as takes_positions

__getattr__ = imported_at_first_use(__name__)
