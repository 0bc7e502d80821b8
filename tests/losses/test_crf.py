"""Chains against sums over every path, written out."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradkit.losses import (
    _chain,
    crf_log_likelihood,
    crf_marginals,
    hmm_log_likelihood,
    viterbi,
)

RNG = np.random.default_rng(0)
N, K = 4, 3
UNARY, TRANSITIONS = RNG.normal(size=(3, N, K)), RNG.normal(size=(K, K))
START, END = RNG.normal(size=K), RNG.normal(size=K)
TAGS = np.array([[0, 2, 1, 1], [2, -1, -1, -1], [1, 0, 2, 99]])
LENGTHS = np.array([4, 1, 3])


def path_scores(unary, transitions, start, end, length):
    paths = np.array(list(itertools.product(range(unary.shape[-1]), repeat=length)))
    scores = sum(unary[t, paths[:, t]] for t in range(length)) + start[paths[:, 0]]
    for t in range(length - 1):
        scores += transitions[paths[:, t], paths[:, t + 1]]
    return paths, scores + end[paths[:, -1]]


def enumerated(unary, transitions, start, end):
    out = []
    for b, length in enumerate(LENGTHS):
        paths, scores = path_scores(unary[b], transitions, start, end, length)
        (index,) = np.flatnonzero((paths == TAGS[b, :length]).all(1))
        out.append(scores[index] - jax.nn.logsumexp(scores))
    return jnp.stack(out)


def ours(unary, transitions, start, end):
    return crf_log_likelihood(unary, transitions, TAGS, LENGTHS, start=start, end=end)


def potentials():
    return tuple(map(jnp.asarray, (UNARY, TRANSITIONS, START, END)))


@pytest.mark.parametrize("product", [pytest.param(2, marks=pytest.mark.slow), 64])
def test_likelihood_and_derivatives_are_those_of_the_sum_over_paths(product, monkeypatch):
    monkeypatch.setattr(_chain, "PRODUCT", product)

    def derivatives(f):
        weighed = lambda *args: jnp.vdot(jnp.array([1.0, -2, 0.5]), f(*args))
        return (
            f(*potentials()),
            jax.jacrev(f, (0, 1, 2, 3))(*potentials()),
            jax.hessian(weighed, (0, 1))(*potentials()),
        )

    with jax.enable_x64(True):
        jax.tree.map(
            lambda got, expected: np.testing.assert_allclose(got, expected, atol=1e-11),
            jax.jit(lambda: derivatives(ours))(),
            jax.jit(lambda: derivatives(enumerated))(),
        )


def test_logarithms_take_over_where_probabilities_round_to_zero():
    # All that may follow the first tag is at least e^200 less likely: float32 loses it.
    unary = np.zeros((3, 3, 2), np.float32)
    unary[0, 0, 1], unary[0, 1, 1] = -np.inf, -200
    transitions = np.array([[-np.inf, 0], [0, -np.inf]], np.float32)
    transitions[0, 0] = -300
    tags = np.zeros((3, 3), np.int32)

    @jax.jit
    def f(u, a):
        y, pull = jax.vjp(lambda u, a: crf_log_likelihood(u, a, tags), u, a)
        return y, pull(jnp.ones_like(y))

    _, exact = jax.jit(_chain._rescaled)(unary.swapaxes(0, 1), transitions, np.full(3, 3))
    assert not exact[0]
    assert exact[1:].all()
    with jax.enable_x64(True):
        wide = [jnp.asarray(a, jnp.float64) for a in (unary, transitions)]
        expected = jax.tree.map(np.asarray, jax.tree.leaves(f(*wide)))
    got = jax.tree.leaves(f(unary, transitions))
    for g, e in zip(got, expected):
        assert np.isfinite(g).all()
        np.testing.assert_allclose(g, e, rtol=1e-5, atol=1e-5)


def test_mass_that_fades_over_many_steps_is_noticed():
    # No step loses much by itself, but what is kept falls below what was rounded away.
    unary = np.zeros((1, 14, 2), np.float32)
    unary[0, 0, 1] = -110
    unary[0, 1:, 0] = -10
    transitions = np.array([[0, -np.inf], [-np.inf, 0]], np.float32)
    total = np.logaddexp(-110.0, -130.0)
    likelihood = jax.jit(crf_log_likelihood)(unary, transitions, np.ones((1, 14), int))
    np.testing.assert_allclose(likelihood, -110 - total, atol=1e-4)


def test_marginals_are_probabilities_of_paths():
    with jax.enable_x64(True):
        p = jax.jit(lambda: crf_marginals(UNARY, TRANSITIONS, LENGTHS, start=START, end=END))()
    for b, length in enumerate(LENGTHS):
        paths, scores = path_scores(UNARY[b], TRANSITIONS, START, END, length)
        weights = np.exp(scores) / np.exp(scores).sum()
        expected = np.zeros((N, K))
        for path, weight in zip(paths, weights):
            expected[np.arange(length), path] += weight
        np.testing.assert_allclose(p[b], expected, atol=1e-12)


def test_viterbi_finds_the_best_of_all_paths():
    f = lambda unary: viterbi(unary, TRANSITIONS, LENGTHS, start=START, end=END)[::-1]
    with jax.enable_x64(True):
        weighed = lambda unary: (lambda score, tags: (score.sum(), (score, tags)))(*f(unary))
        gradient, (score, tags) = jax.jit(jax.grad(weighed, has_aux=True))(jnp.asarray(UNARY))
    for b, length in enumerate(LENGTHS):
        paths, scores = path_scores(UNARY[b], TRANSITIONS, START, END, length)
        best = paths[scores.argmax()]
        np.testing.assert_array_equal(tags[b, :length], best)
        assert (tags[b, length:] == best[-1]).all()
        np.testing.assert_allclose(score[b], scores.max())
        np.testing.assert_array_equal(np.asarray(gradient)[b, np.arange(length), best], 1)
    assert np.asarray(gradient).sum() == LENGTHS.sum()


def test_hmm_sums_over_its_paths_and_counts_expected_transitions():
    initial, matrix = RNG.dirichlet(np.ones(K)), RNG.dirichlet(np.ones(K), size=K)
    with jax.enable_x64(True):
        seen = jnp.asarray(UNARY[0])
        f = lambda log: hmm_log_likelihood(jnp.log(initial), log, seen)
        value, counts = jax.jit(jax.value_and_grad(f))(jnp.log(matrix))
    paths, scores = path_scores(UNARY[0], np.log(matrix), np.log(initial), np.zeros(K), N)
    weights = np.exp(scores)
    np.testing.assert_allclose(value, np.log(weights.sum()))
    expected = np.zeros((K, K))
    for path, weight in zip(paths, weights / weights.sum()):
        np.add.at(expected, (path[:-1], path[1:]), weight)
    np.testing.assert_allclose(counts, expected, atol=1e-12)


def test_bfloat16_and_errors():
    half = jnp.zeros((3, 2), jnp.bfloat16), jnp.zeros((2, 2), jnp.bfloat16), np.zeros(3, int)
    assert jax.eval_shape(crf_log_likelihood, *half).dtype == jnp.bfloat16
    y = jax.jit(crf_log_likelihood)(*half)
    np.testing.assert_allclose(y, -3 * np.log(2), rtol=1e-2)
    with pytest.raises(ValueError, match="got 'transitions'") as error:
        crf_log_likelihood(UNARY, np.zeros((2, 2)), TAGS)
    assert "[3, 3], from tag to tag" in str(error.value)
    with pytest.raises(TypeError, match="takes integers as 'tags'"):
        crf_log_likelihood(UNARY, TRANSITIONS, TAGS.astype(float))
    with pytest.raises(ValueError, match="got 'lengths'"):
        crf_marginals(UNARY, TRANSITIONS, np.array(3))
