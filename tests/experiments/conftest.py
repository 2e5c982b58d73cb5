"""Which of these files are left to `make test-all`.

Each compares one experiment with independent computations on several families, which takes minutes; a test of theirs
that takes seconds is marked `quick`, and is not left out. What every experiment promises (test_promises), what it says
(says/), its planted trial (jobs/test_selftest) and the causal trace are tested every time.
"""

from pathlib import Path

import pytest

SLOW = {
    "test_attention_knockout",
    "test_context_reading",
    "test_future_use",
    "test_hidden_states",
    "test_layer_ablation",
    "test_logit_lens",
    "test_syntax_probe",
    "test_trace_further",
    "test_trace_screen",
    "test_trigger_examples",
    "test_truncated_context",
    "test_weight_directions",
    "test_word_formation",
    "test_word_position_probe",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        here = Path(item.path).parent == Path(__file__).parent
        if here and Path(item.path).stem in SLOW and not item.get_closest_marker("quick"):
            item.add_marker(pytest.mark.slow)
