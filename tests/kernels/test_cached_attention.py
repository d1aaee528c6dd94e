import numpy as np
import pytest

from feste_dp.kernels.attention import KEY_BLOCK, attention_forward, make_attention_scratch
from feste_dp.kernels.cached_attention import PANEL, cached_attention, head_room, store_key_value
from feste_dp.kernels.packing import make_pack_buffers


@pytest.mark.parametrize(
    ("positions", "channels", "heads"), [(5, 16, 2), (400, 64, 1), (193, 70, 5), (200, 240, 3), (64, 50, 1)]
)
def test_a_position_with_its_cache_has_the_bits_of_all_at_once(rng, positions, channels, heads):
    head, pack = channels // heads, make_pack_buffers()
    qkv = 3 * rng.standard_normal((1, positions, 3 * channels), dtype=np.float32)
    expected, lse = (
        np.empty((1, positions, channels), np.float32),
        np.empty((1, heads, positions), np.float32),
    )
    attention_forward(expected, lse, qkv, make_attention_scratch(positions, head), heads, pack)
    panels = -(-positions // PANEL)
    keys = np.full((heads, panels, head, PANEL), np.nan, np.float32)  # what is not there yet is not read
    values = np.full((heads, panels * PANEL, head), np.nan, np.float32)
    scores, sums = np.full(KEY_BLOCK, np.nan, np.float32), np.full(head_room(head), np.nan, np.float32)
    out = np.empty((positions, channels), np.float32)
    q, k, v = (qkv[0, :, i * channels : (i + 1) * channels] for i in range(3))
    for t in range(positions):
        for h in range(heads):
            columns = slice(h * head, (h + 1) * head)
            store_key_value(keys[h], values[h], t, k[t, columns], v[t, columns])
            cached_attention(out[t, columns], q[t, columns], keys[h], values[h], t + 1, scores, sums)
    np.testing.assert_array_equal(out, expected[0])
