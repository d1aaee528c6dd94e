import math

import numpy as np
import pytest

from feste_dp.config.schema import OptimConfig
from feste_dp.optim import adamw as adamw_module
from feste_dp.optim.adamw import AdamW
from feste_dp.optim.clipping import clip_factor, gradient_norm

P, DECAYED = 1003, 701
CONFIG = OptimConfig(beta1=0.8, beta2=0.95, eps=1e-6, weight_decay=0.3)

# Float32 rounding of about five operations an element, against the float64 formula.
TOLERANCE = 2e-6


def reference(params, grads, lr, clip):
    """The formula of the paper in float64: (params, m, v) after all of grads."""
    params, m, v = params.astype(np.float64), np.zeros(len(params)), np.zeros(len(params))
    decay = np.where(np.arange(len(params)) < DECAYED, CONFIG.weight_decay, 0.0)
    for step, grad in enumerate(grads, 1):
        g = grad.astype(np.float64) * clip
        m = CONFIG.beta1 * m + (1 - CONFIG.beta1) * g
        v = CONFIG.beta2 * v + (1 - CONFIG.beta2) * g**2
        m_hat, v_hat = m / (1 - CONFIG.beta1**step), v / (1 - CONFIG.beta2**step)
        params = params - lr * decay * params - lr * m_hat / (np.sqrt(v_hat) + CONFIG.eps)
    return params, m, v


def after(threads, params, grads, lr=0.01, clip=0.5):
    params = params.copy()
    optimizer = AdamW(len(params), DECAYED, CONFIG, threads)
    for step, grad in enumerate(grads, 1):
        optimizer.update(params, grad, step, lr, clip)
    optimizer.close()
    return params, *optimizer.state.values()


@pytest.fixture
def numbers(rng):
    return rng.standard_normal(P, dtype=np.float32), rng.standard_normal((5, P), dtype=np.float32)


def test_five_updates_equal_the_formula_of_the_paper(numbers):
    for found, expected in zip(after(1, *numbers), reference(*numbers, lr=0.01, clip=0.5), strict=True):
        np.testing.assert_allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("threads", [2, 3, 7])
def test_the_number_of_threads_changes_no_bit(numbers, threads, monkeypatch):
    monkeypatch.setattr(adamw_module, "MIN_ELEMENTS_PER_THREAD", 64)
    for one, many in zip(after(1, *numbers), after(threads, *numbers), strict=True):
        assert one.tobytes() == many.tobytes()


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("place", [0, 333, DECAYED, P - 1])
def test_a_weight_that_is_not_finite_is_told_whichever_thread_finds_it(numbers, threads, place, monkeypatch):
    monkeypatch.setattr(adamw_module, "MIN_ELEMENTS_PER_THREAD", 64)
    params = numbers[0].copy()
    optimizer = AdamW(P, DECAYED, CONFIG, threads)
    assert optimizer.update(params, numbers[1][0], 1, 0.01, 1.0)
    params[place] = np.inf
    assert not optimizer.update(params, numbers[1][1], 2, 0.01, 1.0)
    optimizer.close()


@pytest.mark.parametrize("decayed", [0, 1, 500, P])
def test_only_the_first_elements_decay(numbers, decayed, monkeypatch):
    monkeypatch.setattr(adamw_module, "MIN_ELEMENTS_PER_THREAD", 64)
    params = numbers[0].copy()
    optimizer = AdamW(P, decayed, CONFIG, threads=3)
    optimizer.update(params, np.zeros(P, np.float32), 1, 0.1, 1.0)
    optimizer.close()
    kept = np.float32(1 - 0.1 * CONFIG.weight_decay)
    assert params[:decayed].tobytes() == (numbers[0][:decayed] * kept).tobytes()
    assert params[decayed:].tobytes() == numbers[0][decayed:].tobytes()


@pytest.mark.parametrize("threads", [2, 3, 7])
def test_threads_share_no_cache_line_of_m_or_v_and_take_every_element_once(threads, monkeypatch):
    monkeypatch.setattr(adamw_module, "MIN_ELEMENTS_PER_THREAD", 64)
    optimizer = AdamW(P, DECAYED, CONFIG, threads)
    assert all(values.ctypes.data % 64 == 0 for values in optimizer.state.values())
    assert len(optimizer._parts) == threads
    assert all(part[0][0] * 4 % 64 == 0 for part in optimizer._parts)
    taken = [i for part in optimizer._parts for start, stop, _ in part for i in range(start, stop)]
    assert taken == list(range(P))
    optimizer.close()


@pytest.mark.parametrize("part", [0, 1])
def test_an_error_in_any_thread_reaches_the_caller(numbers, part, monkeypatch):
    monkeypatch.setattr(adamw_module, "MIN_ELEMENTS_PER_THREAD", 64)
    optimizer = AdamW(P, DECAYED, CONFIG, threads=2)
    broken = optimizer._parts[part][0][0]

    def fail(params, m, v, grad, start, *rest):
        if start == broken:
            raise ZeroDivisionError
        return True

    monkeypatch.setattr(adamw_module, "adamw", fail)
    with pytest.raises(ZeroDivisionError):
        optimizer.update(numbers[0].copy(), numbers[1][0], 1, 0.01, 1.0)
    optimizer.close()


def test_a_small_model_is_updated_without_threads():
    assert AdamW(P, DECAYED, CONFIG, threads=8)._pool is None


def test_the_norm_is_the_root_of_the_sum_of_the_chunks():
    assert gradient_norm(np.array([9.0, 16.0])) == 5.0
    assert gradient_norm(np.array([0.0])) == 0.0


def test_the_norm_does_not_depend_on_the_order_of_the_chunks(rng):
    norms = 10.0 ** rng.uniform(-20, 20, 1000)
    assert len({gradient_norm(rng.permutation(norms)) for _ in range(10)}) == 1


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_the_norm_of_a_gradient_that_is_not_finite_is_nan(bad):
    assert math.isnan(gradient_norm(np.array([1.0, bad, 2.0])))


def test_a_gradient_below_the_limit_is_not_scaled():
    assert clip_factor(0.5, 1.0) == 1.0
    assert clip_factor(0.0, 1.0) == 1.0


def test_a_gradient_above_the_limit_is_scaled_to_it():
    assert clip_factor(4.0, 1.0) == pytest.approx(0.25, rel=1e-6)
    assert clip_factor(4.0, 1.0) * 4.0 <= 1.0


@pytest.mark.parametrize("norm", [0.0, 1.0, 1e30, math.inf, math.nan])
def test_a_limit_of_zero_never_clips(norm):
    assert clip_factor(norm, 0.0) == 1.0
