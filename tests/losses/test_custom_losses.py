"""Losses for custom training against other formulas, other libraries' numbers, and mpmath."""

import itertools

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from gradkit import losses
from gradkit.losses import _quantiles
from gradkit.losses._evidential import _divergence_from_flat

RNG = np.random.default_rng(0)


def at_both(f, *args):
    """Values and gradients of an elementwise function, in float32 and in float64."""
    with jax.enable_x64(True):
        wide = [jnp.asarray(a, jnp.float64) for a in args]
        exact = jax.tree.map(np.asarray, jax.jit(jax.vmap(f))(*wide))
    narrow = [jnp.asarray(a, jnp.float32) for a in args]
    return jax.jit(jax.vmap(f))(*narrow), exact


def assert_both(got, expected, narrow=2e-5, wide=1e-10):
    for found, tolerance in zip(got, (narrow, wide)):
        for g, e in zip(jax.tree.leaves(found), expected, strict=True):
            np.testing.assert_allclose(g, np.asarray(e, float), rtol=tolerance, atol=tolerance)


def differences(f, x, step=1e-5):
    """The gradient of a function of NumPy's, in float64."""
    slopes = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        moved = np.zeros_like(x)
        moved[index] = step
        slopes[index] = (f(x + moved) - f(x - moved)) / (2 * step)
    return slopes


# -- focal, Tversky, Lovász -------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [0.5, pytest.param(2.0, marks=pytest.mark.slow)])
def test_softmax_focal_loss_is_right_for_logits_of_any_size(gamma):
    def exact(*logits):
        total = mp.fsum(mp.exp(z) for z in logits)
        p, rest = mp.exp(logits[1]) / total, mp.fsum(mp.exp(z) for z in logits[::2]) / total
        return -(rest**gamma) * mp.log(p if p < 0.5 else 1 - rest)

    logits = np.array([[0.3, -1.2, 2.0], [-60, 60, -50], [80, -80, 0], [5, 5.5, -90]])
    f = lambda z: jax.value_and_grad(losses.softmax_focal_loss)(z, 1, gamma=gamma)
    with mp.workdps(120):
        values = [exact(*z) for z in logits]
        slopes = [
            [mp.diff(exact, tuple(z), tuple(int(i == j) for j in range(3))) for i in range(3)]
            for z in logits.tolist()
        ]
    assert_both(at_both(f, logits), (values, slopes))


def test_focal_weights_are_the_labels_class():
    logits, labels = RNG.normal(size=(4, 3)).astype(np.float32), np.array([0, 2, 1, 2])
    weights = np.array([1.0, 2.0, 5.0], np.float32)
    plain = losses.softmax_focal_loss(logits, labels)
    weighed = losses.softmax_focal_loss(logits, labels, weights=weights)
    np.testing.assert_allclose(weighed, plain * weights[labels], rtol=1e-6)


def test_tversky_loss_counts_false_positives_and_negatives():
    found, mask = np.array([1, 1, 0, 0, 1.0]), np.array([1, 0, 1, 1, 1])
    assert losses.tversky_loss(found, mask, alpha=0.2, beta=0.7) == pytest.approx(
        1 - 2 / (2 + 0.2 + 1.4), rel=1e-6
    )
    jaccard = losses.tversky_loss(found, mask, alpha=1.0, beta=1.0)
    assert jaccard == pytest.approx(1 - 2 / 5, rel=1e-6)
    focused = losses.tversky_loss(found, mask, alpha=1.0, beta=1.0, focus=0.75)
    assert focused == pytest.approx(0.6**0.75, rel=1e-6)
    counted = losses.tversky_loss(found, mask, alpha=1.0, beta=1.0, where=np.arange(5) > 0)
    assert counted == pytest.approx(1 - 1 / 4, rel=1e-6)


def test_tversky_loss_of_nothing_and_of_a_perfect_mask_has_finite_slopes():
    f = lambda p, y: losses.tversky_loss(p, y, focus=0.75)
    for p, y in ((jnp.zeros(3), jnp.zeros(3)), (jnp.ones(3), jnp.ones(3))):
        assert f(p, y) == 0
        assert (jax.grad(f)(p, y) == 0).all()


def jaccard_extension(errors, mask):
    """The Lovász extension as the integral of the set function over its levels."""
    total = 0.0
    levels = np.concatenate([[0], np.sort(errors)])
    for low, high in itertools.pairwise(levels):
        wrong = errors > low
        total += (high - low) * wrong.sum() / max((mask | wrong).sum(), 1)
    return total


def test_lovasz_hinge_is_the_extension_of_the_jaccard_loss():
    z, y = RNG.normal(size=(3, 7)), RNG.integers(0, 2, (3, 7))
    y[2] = 0
    expected = lambda z: sum(
        jaccard_extension(np.maximum(1 - (2 * t - 1) * s, 0), t == 1) for s, t in zip(z, y)
    )
    with jax.enable_x64(True):
        f = lambda z: losses.lovasz_hinge(z, y).sum()
        value, slopes = jax.jit(jax.value_and_grad(f))(z)
        masked = jax.jit(losses.lovasz_hinge)(z, y, where=np.arange(7) < 5)
        part = jax.jit(losses.lovasz_hinge)(z[:, :5], y[:, :5])
        np.testing.assert_allclose(masked, part, rtol=1e-12)
    np.testing.assert_allclose(value, expected(z), rtol=1e-12)
    np.testing.assert_allclose(slopes, differences(expected, z), atol=1e-8)


def test_lovasz_softmax_is_the_mean_extension_over_the_classes_there():
    p, y = RNG.dirichlet(np.ones(4), size=6), np.array([0, 2, 2, 0, 3, 2])  # class 1 is not there
    expected = lambda p: np.mean(
        [jaccard_extension(np.abs((y == c) - p[:, c]), y == c) for c in (0, 2, 3)]
    )
    with jax.enable_x64(True):
        value, slopes = jax.jit(jax.value_and_grad(losses.lovasz_softmax))(p, y)
    np.testing.assert_allclose(value, expected(p), rtol=1e-12)
    np.testing.assert_allclose(slopes, differences(expected, p), atol=1e-8)
    assert jax.jit(losses.lovasz_softmax)(p, y, where=np.zeros(6, bool)) == 0


# -- robust -----------------------------------------------------------------------------------


def exact_robust(x, alpha, c):
    s = (mp.mpf(x) / c) ** 2
    limits = {2: s / 2, 0: mp.log(s / 2 + 1), mp.inf: mp.expm1(s / 2), -mp.inf: -mp.expm1(-s / 2)}
    if alpha in limits:
        return limits[alpha]
    b = abs(alpha - 2)
    return b / alpha * ((s / b + 1) ** (alpha / 2) - 1)


ALPHAS = [-np.inf, -1e6, -2.0, -1e-3, 1e-7, 0.0, 0.5, 1.0, 1.999, 2.0, 2.001, 4.0, np.inf]


def test_robust_loss_and_its_slopes_at_and_near_every_special_case():
    x, alpha = (a.ravel() for a in np.meshgrid([-3.0, 0.0, 1e-3, 2.0], ALPHAS))
    c = np.full_like(x, 1.5)
    f = lambda *args: jax.value_and_grad(losses.robust_loss, (0, 1, 2))(*args)
    got = at_both(f, x, alpha, c)
    with mp.workdps(50):
        values, slopes = [], []
        for point in zip(x.tolist(), map(mp.mpf, alpha.tolist()), c.tolist()):
            values.append(exact_robust(*point))
            parts = [mp.diff(exact_robust, point, n) for n in ((1, 0, 0), (0, 0, 1))]
            # At 2 the slope is infinite and documented as 0; it is 0 at infinity.
            in_alpha = 0
            if abs(point[1]) != mp.inf and point[1] != 2:
                near = mp.mpf(10) ** -20  # at alpha = 0 the formula itself has a pole
                side = lambda h: exact_robust(point[0], point[1] + h, point[2])
                in_alpha = (side(near) - side(-near)) / (2 * near)
            slopes.append((parts[0], in_alpha, parts[1]))
    expected = values, *zip(*slopes)
    # In float32, alpha = 1.999 is 2e-4 of its distance to 2 off, on which its slope depends.
    assert_both(got, expected, narrow=3e-4, wide=1e-9)


def test_robust_loss_has_second_derivatives_at_the_special_cases():
    with jax.enable_x64(True):
        curvature = jax.jit(jax.vmap(jax.grad(jax.grad(losses.robust_loss)), (None, 0)))
        got = curvature(1.2, jnp.array(ALPHAS))
    for alpha, found in zip(ALPHAS, np.asarray(got)):
        with mp.workdps(30):
            exact = mp.diff(lambda x, a=alpha: exact_robust(x, mp.mpf(a), 1), 1.2, 2)
        assert found == pytest.approx(float(exact), rel=1e-8)


def exact_bi_tempered(z, label, t1, t2):
    exp_t = lambda x: (1 + (1 - t2) * x) ** (1 / (1 - t2)) if t2 != 1 else mp.exp(x)
    log_t = lambda x: (x ** (1 - t1) - 1) / (1 - t1) if t1 != 1 else mp.log(x)
    top = max(z)
    shift = mp.findroot(
        lambda s: mp.fsum(exp_t(v - top - s) for v in z) - 1,
        (0, len(z) ** (t2 - 1) / (t2 - 1) if t2 != 1 else mp.log(len(z))), solver="anderson",
    )  # fmt: skip
    p = [exp_t(v - top - shift) for v in z]
    return -log_t(p[label]) - (1 - mp.fsum(v ** (2 - t1) for v in p)) / (2 - t1)


@pytest.mark.parametrize(
    ("t1", "t2"),
    [
        (0.8, 1.2),
        pytest.param(0.2, 4.0, marks=pytest.mark.slow),
        pytest.param(1.0, 1.5, marks=pytest.mark.slow),
    ],
)
def test_bi_tempered_loss_and_gradient(t1, t2):
    logits = np.array([[0.5, -1.0, 2.0], [-50.0, 40.0, 3.0]])
    f = lambda z: jax.value_and_grad(losses.bi_tempered_logistic_loss)(z, 0, t1, t2)
    got = at_both(f, logits)
    with mp.workdps(40):
        values = [exact_bi_tempered(list(map(mp.mpf, z)), 0, t1, t2) for z in logits.tolist()]
        slopes = [
            [
                mp.diff(lambda v, z=z, i=i: exact_bi_tempered(
                    [v if j == i else mp.mpf(w) for j, w in enumerate(z)], 0, t1, t2), z[i])
                for i in range(3)
            ]
            for z in logits.tolist()
        ]  # fmt: skip
    assert_both(got, (values, slopes), wide=1e-8)


def test_bi_tempered_loss_at_temperature_one_is_cross_entropy_and_takes_soft_labels():
    z, y = RNG.normal(size=(2, 5)), RNG.dirichlet(np.ones(5), size=2)
    with jax.enable_x64(True):
        got = losses.bi_tempered_logistic_loss(z, y, 1, 1)
        hessian = jax.jit(jax.hessian(losses.bi_tempered_logistic_loss))(z[0], y[0])
        gradient = jax.jit(jax.grad(losses.bi_tempered_logistic_loss))
        slopes = [
            (gradient(z[0] + h, y[0]) - gradient(z[0] - h, y[0])) / 2e-6 for h in 1e-6 * np.eye(5)
        ]
        np.testing.assert_allclose(hessian, np.stack(slopes), atol=1e-8)
    log_p = z - np.log(np.exp(z).sum(1, keepdims=True))
    np.testing.assert_allclose(got, (y * (np.log(y) - log_p)).sum(1), rtol=1e-12)


def test_bi_tempered_loss_is_finite_for_many_classes_masks_and_bfloat16():
    z = np.zeros(3000, np.float32)
    z[0], z[1] = 3e4, -np.inf
    f = jax.jit(jax.value_and_grad(losses.bi_tempered_logistic_loss))
    for label in (0, 5):
        value, slopes = f(z, label)
        assert np.isfinite(value)
        assert np.isfinite(slopes).all()
    half = losses.bi_tempered_logistic_loss(jnp.array([100.0, -100], jnp.bfloat16), 1)
    assert half.dtype == jnp.bfloat16
    assert np.isfinite(half)
    with pytest.raises(ValueError, match="0 <= t1 <= 1 <= t2") as error:
        losses.bi_tempered_logistic_loss(z, 0, 1.2, 0.8)
    assert "t1 = 1.2, t2 = 0.8" in str(error.value)


# -- quantiles --------------------------------------------------------------------------------


def test_minimisers_of_quantile_and_expectile_loss_are_those_of_the_sample():
    sample = RNG.exponential(size=101)
    with jax.enable_x64(True):
        mean = lambda loss, level: lambda p: loss(p, sample, level).mean()
        for level in (0.1, 0.9):
            at = np.quantile(sample, level)
            slope = jax.grad(mean(losses.quantile_loss, level))
            slopes = jax.jit(jax.vmap(slope))(jnp.array([at - 1e-9, at, at + 1e-9]))
            assert slopes[0] < 0 < slopes[2]
            at = scipy.stats.expectile(sample, level)
            assert abs(jax.jit(jax.grad(mean(losses.expectile_loss, level)))(at)) < 1e-12
    with pytest.raises(ValueError, match="fraction as 'quantile'"):
        losses.quantile_loss(0.0, 1.0, 1.5)


def test_crps_gaussian_is_the_integral_and_has_its_limit_at_width_zero():
    points = [(0.3, 0.7, 1.1), (0.0, 2.0, -3.0), (1.0, 0.01, 1.2)]

    def integral(mean, stddev, y):
        square = lambda x: (scipy.stats.norm.cdf(x, mean, stddev) - (x >= y)) ** 2
        ends = (mean - 12 * stddev, min(mean, y), max(mean, y), mean + 12 * stddev + abs(y))
        return sum(
            scipy.integrate.quad(square, a, b, epsabs=1e-12, limit=200)[0]
            for a, b in itertools.pairwise(sorted(ends))
        )

    f = lambda *args: jax.value_and_grad(losses.crps_gaussian, (0, 1))(*args)
    values = [integral(*point) for point in points]
    slopes = [
        differences(lambda v, y=y: integral(*v, y), np.array([m, s]), 1e-4) for m, s, y in points
    ]
    assert_both(at_both(f, *zip(*points)), (values, *zip(*slopes)), 1e-5, 1e-6)
    for y, sign in ((2.0, -1), (0.0, 0)):
        value, (mean_bar, stddev_bar) = f(0.0, 0.0, y)
        assert value == y
        assert mean_bar == sign
        assert np.isfinite(stddev_bar)


@pytest.mark.parametrize(
    ("pairs", "fair"), [(1024, False), (0, True)], ids=["pairs", "sort and fair"]
)
def test_crps_ensemble_is_the_double_sum(pairs, fair, monkeypatch):
    monkeypatch.setattr(_quantiles, "PAIRS", pairs)
    n = 19
    x, y = RNG.normal(size=(2, n)), RNG.normal(size=2)
    x[0, 3] = x[0, 1]

    def expected(x):
        pairs = np.abs(x[:, :, None] - x[:, None]).sum((1, 2)) / (2 * n * (n - fair))
        return (np.abs(x - y[:, None]).mean(1) - pairs).sum()

    with jax.enable_x64(True):
        f = lambda x: losses.crps_ensemble(x, y, fair=fair).sum()
        value, slopes = jax.jit(jax.value_and_grad(f))(x)
        np.testing.assert_allclose(losses.crps_ensemble(x.T, y, fair=fair, axis=0).sum(), value)
    np.testing.assert_allclose(value, expected(x), rtol=1e-12)
    # Differences take both sides of the tie, whose mean is the rule's.
    np.testing.assert_allclose(slopes, differences(expected, x), atol=1e-9)
    with pytest.raises(ValueError, match="too few members"):
        losses.crps_ensemble(x[:, :1], y, fair=True)


# -- evidential -------------------------------------------------------------------------------


def test_evidential_classification_loss_has_the_numbers_of_torch_distributions():
    # PyTorch 2.13, float64: mean and variance of Dirichlet, kl_divergence(Dirichlet, Dirichlet).
    evidence, value = np.array([[0.5, 3.0, 12.0]]), [2.365196971331387]
    slopes = [[-0.20842664654596624, -0.11986270614129242, 0.10137343753173926]]
    loss = lambda e: losses.evidential_classification_loss(e, 1, kl_weight=0.5)
    assert_both(at_both(jax.value_and_grad(loss), evidence), (value, slopes))


def test_evidential_divergence_keeps_its_slope_for_large_evidence_in_float32():
    def exact(*e):
        total = mp.fsum(e) + 3
        terms = [v * mp.digamma(v + 1) - mp.loggamma(v + 1) for v in e]
        whole = mp.loggamma(total) - mp.loggamma(3) - (total - 3) * mp.digamma(total)
        return whole + mp.fsum(terms)

    evidence = np.array([[3e4, 10.0, 0.0], [2e3, 2e3, 5e3]])
    with mp.workdps(40):
        slopes = [
            [mp.diff(exact, tuple(e), tuple(int(i == j) for j in range(3))) for i in range(3)]
            for e in evidence.tolist()
        ]
    narrow, wide = at_both(jax.grad(_divergence_from_flat), evidence)
    np.testing.assert_allclose(wide, np.array(slopes, float), rtol=1e-7, atol=1e-12)
    np.testing.assert_allclose(narrow, np.array(slopes, float), rtol=1e-3, atol=1e-6)


def test_evidential_regression_loss_has_the_numbers_of_torch_distributions():
    # PyTorch 2.13, float64: StudentT(2 alpha, gamma, sqrt(beta (1 + nu) / (nu alpha))).log_prob.
    point = [[v] for v in (0.3, 1.7, 2.5, 0.8, 1.1)]
    f = jax.value_and_grad(losses.evidential_regression_loss, (0, 1, 2, 3))
    value = [1.3512860178885302]
    slopes = [[-1.5678757396449703], [0.03855997731110852], [0.012996242031420059],
              [-0.12943786982248515]]  # fmt: skip
    assert_both(at_both(f, *point), (value, *slopes))


def test_evidential_regression_loss_holds_for_large_evidence_in_float32():
    def exact(alpha):
        omega, square = 2 * mp.mpf(2) * (1 + mp.mpf(3)), mp.mpf(3) * mp.mpf(0.5) ** 2
        gammas = mp.loggamma(alpha) - mp.loggamma(alpha + mp.mpf(0.5))
        fit = (alpha + mp.mpf(0.5)) * mp.log(square + omega) - alpha * mp.log(omega)
        return mp.log(mp.pi / 3) / 2 + fit + gammas

    alphas = np.array([0.5, 15.9, 16.1, 1e3, 1e6])
    loss = lambda a: losses.evidential_regression_loss(0.0, 3.0, a, 2.0, 0.5, weight=0.0)
    with mp.workdps(40):
        values = [exact(mp.mpf(a)) for a in alphas]
        slopes = [mp.diff(exact, mp.mpf(a)) for a in alphas]
    assert_both(at_both(jax.value_and_grad(loss), alphas), (values, slopes), 1e-5, 1e-10)


# -- ranking ----------------------------------------------------------------------------------


def discounted(gains):
    return sum(g / np.log2(i + 2) for i, g in enumerate(gains))


def test_approx_ndcg_loss_becomes_one_minus_ndcg_and_has_the_slopes_of_its_formula():
    scores, relevance = RNG.normal(size=6), np.array([0, 2, 1, 0, 3, 1])

    def formula(s, temperature=0.1):
        rank = [
            1 + sum(1 / (1 + np.exp((s[i] - t) / temperature)) for j, t in enumerate(s) if j != i)
            for i in range(6)
        ]
        found = sum((2.0**r - 1) / np.log2(1 + k) for r, k in zip(relevance, rank))
        return 1 - found / discounted(sorted(2.0**relevance - 1, reverse=True))

    with jax.enable_x64(True):
        value, slopes = jax.jit(jax.value_and_grad(losses.approx_ndcg_loss))(scores, relevance)
        sharp = losses.approx_ndcg_loss(scores, relevance, temperature=1e-4)
    np.testing.assert_allclose(value, formula(scores), rtol=1e-10)
    np.testing.assert_allclose(slopes, differences(formula, scores), atol=1e-7)
    gains = 2.0**relevance - 1
    ndcg = discounted(gains[np.argsort(-scores)]) / discounted(sorted(gains, reverse=True))
    np.testing.assert_allclose(sharp, 1 - ndcg, rtol=1e-10)


def test_lambda_loss_is_the_double_sum_of_its_paper():
    scores, relevance = RNG.normal(size=5), np.array([0, 2, 1, 0, 3])
    gains = (2.0**relevance - 1) / discounted(sorted(2.0**relevance - 1, reverse=True))
    place = np.argsort(np.argsort(-scores)) + 1
    inverse = lambda k: 1 / np.log2(1 + k)

    def formula(s):
        total = 0.0
        for i, j in itertools.product(range(5), repeat=2):
            if relevance[i] > relevance[j]:
                rho = abs(inverse(place[i]) - inverse(place[j]))
                apart = abs(place[i] - place[j])
                weight = rho + 10 * abs(inverse(apart) - inverse(apart + 1))
                price = np.log2(1 + np.exp(-(s[i] - s[j])))
                total += weight * abs(gains[i] - gains[j]) * price
        return total

    with jax.enable_x64(True):
        value, slopes = jax.jit(jax.value_and_grad(losses.lambda_loss))(scores, relevance)
    np.testing.assert_allclose(value, formula(scores), rtol=1e-12)
    np.testing.assert_allclose(slopes, differences(formula, scores), atol=1e-8)


@pytest.mark.parametrize("name", ["approx_ndcg_loss", "lambda_loss"])
def test_masked_items_are_not_in_the_list_and_lists_may_be_empty(name):
    loss = getattr(losses, name)
    scores, relevance = np.array([[1.0, 3.0, -1.0, 9.0]] * 2), np.array([[0, 1, 2, 4], [0] * 4])
    where = np.array([True, True, True, False])
    f = jax.jit(lambda s: loss(s.astype(np.float32), relevance, where=where))
    np.testing.assert_allclose(f(scores)[0], loss(scores[0, :3], relevance[0, :3]), rtol=1e-5)
    assert f(scores)[1] == 0
    slopes = jax.jit(jax.grad(lambda s: f(s).sum()))(jnp.asarray(scores, jnp.float32))
    assert np.isfinite(slopes).all()
    assert (slopes[1] == 0).all()
    assert (slopes[:, 3] == 0).all()


# -- metric -----------------------------------------------------------------------------------

POINTS, CLASSES = RNG.normal(size=(6, 3)), np.array([0, 0, 1, 1, 1, 2])


def test_circle_loss_is_the_sum_over_pairs_of_its_paper():
    unit = POINTS / np.linalg.norm(POINTS, axis=1, keepdims=True)
    fixed = unit @ unit.T

    def formula(x, margin=0.25, scale=8.0):
        unit = x / np.linalg.norm(x, axis=1, keepdims=True)
        s, out = unit @ unit.T, 0.0
        for i in range(6):
            positives = [j for j in range(6) if CLASSES[j] == CLASSES[i] and j != i]
            negatives = [j for j in range(6) if CLASSES[j] != CLASSES[i]]
            push = sum(
                np.exp(scale * max(fixed[i, j] + margin, 0) * (s[i, j] - margin)) for j in negatives
            )
            pull = sum(
                np.exp(-scale * max(1 + margin - fixed[i, j], 0) * (s[i, j] - 1 + margin))
                for j in positives
            )
            out += np.log1p(push * pull)
        return out

    with jax.enable_x64(True):
        f = lambda x: losses.circle_loss(x, CLASSES, scale=8.0).sum()
        value, slopes = jax.jit(jax.value_and_grad(f))(POINTS)
    np.testing.assert_allclose(value, formula(POINTS), rtol=1e-12)
    np.testing.assert_allclose(slopes, differences(formula, POINTS), atol=1e-7)


@pytest.mark.parametrize("margin", [None, pytest.param(0.5, marks=pytest.mark.slow)])
def test_batch_hard_triplet_loss_takes_the_hardest_pairs(margin):
    def formula(x):
        d = np.linalg.norm(x[:, None] - x[None], axis=-1)
        out = 0.0
        for i in range(5):  # the last is alone in its class
            farthest = max(d[i, j] for j in range(6) if CLASSES[j] == CLASSES[i] and j != i)
            gap = farthest - min(d[i, j] for j in range(6) if CLASSES[j] != CLASSES[i])
            out += np.log1p(np.exp(gap)) if margin is None else max(gap + margin, 0)
        return out

    with jax.enable_x64(True):
        f = lambda x: losses.batch_hard_triplet_loss(x, CLASSES, margin=margin).sum()
        value, slopes = jax.jit(jax.value_and_grad(f))(POINTS)
    np.testing.assert_allclose(value, formula(POINTS), rtol=1e-12)
    np.testing.assert_allclose(slopes, differences(formula, POINTS), atol=1e-8)


@pytest.mark.parametrize("loss", [losses.circle_loss, losses.batch_hard_triplet_loss])
def test_metric_losses_are_finite_where_points_coincide_or_pairs_are_missing(loss):
    x = jnp.zeros((4, 2)).at[3].set(1.0)
    for labels in (np.array([0, 0, 1, 1]), np.zeros(4, int), np.arange(4)):
        value, slopes = jax.jit(jax.value_and_grad(lambda x, y: loss(x, y).sum()))(x, labels)
        assert np.isfinite(value)
        assert np.isfinite(slopes).all()
    with pytest.raises(ValueError, match="got 'labels'"):
        loss(x, np.zeros(3, int))
