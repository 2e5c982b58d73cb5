"""Which of these files are left to `make test-all`.

Each compares one experiment with independent computations on several families, which takes minutes. What
every experiment promises (test_promises), its planted trial (jobs/test_selftest) and the causal trace are
tested every time.
"""

from pathlib import Path

import pytest

SLOW = {
    "test_attention_knockout",
    "test_attention_patterns",
    "test_context_reading",
    "test_final_token_attention",
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
        if Path(item.path).parent == Path(__file__).parent and Path(item.path).stem in SLOW:
            item.add_marker(pytest.mark.slow)
