"""The table of all rules, which `gradkit rules` and docs/rules.md show."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gradkit._entry import Entry
from gradkit._registry import RegisterGradient
from gradkit.rules import _clipping as clipping
from gradkit.rules import _hooks as hooks
from gradkit.rules import _learned_range as learned
from gradkit.rules import _low_bits as low_bits
from gradkit.rules import _quantisation as quantisation
from gradkit.rules import _replacing as replacing
from gradkit.rules import _rounding as rounding
from gradkit.rules import _sampling as sampling
from gradkit.rules import _scaling as scaling
from gradkit.rules import _selections as selections
from gradkit.rules import _straight_through as through
from gradkit.rules import _vq as vq
from gradkit.rules import surrogate as sg

BY_NAME = "by name"
WITH_OPTIONS = "with options"

BENGIO = "Bengio et al. 2013, arXiv:1308.3432"
SPIKINGJELLY = "Fang et al. 2023, arXiv:2310.16620"
ZENKE_GANGULI = "Zenke & Ganguli 2018, arXiv:1705.11146"
WU = "Wu et al. 2018, arXiv:1706.02609"
COURBARIAUX = "Courbariaux et al. 2016, arXiv:1602.02830"
PASCANU = "Pascanu et al. 2013, arXiv:1211.5063"
DOREFA = "Zhou et al. 2016, arXiv:1606.06160"
JACOB = "Jacob et al. 2018, arXiv:1712.05877"
ZENKE_VOGELS = "Zenke & Vogels 2021, Neural Computation 33(4)"


def _identity(function: Callable[..., Any], rule: str, source: str = "", **options: Any) -> Entry:
    return Entry(function, "x", rule, source, **options)


def _spike(function: Callable[..., Any], slope: str, source: str) -> Entry:
    return Entry(function, "[v >= 0]", f"{slope} * y_bar", source, in_maps=BY_NAME)


_LINEAR: dict[str, Any] = {"in_maps": WITH_OPTIONS}
_NONLINEAR: dict[str, Any] = {"in_maps": WITH_OPTIONS, "forward": False}

CATALOGUE: tuple[Entry, ...] = (
    _identity(hooks.tap, "y_bar, collected by name"),
    _identity(hooks.on_cotangent, "y_bar, shown to the host"),
    _identity(hooks.print_cotangent, "y_bar, printed"),
    _identity(hooks.cotangent_norm, "y_bar, its norm printed or collected"),
    _identity(scaling.scale, "factor * y_bar", **_LINEAR),
    _identity(
        scaling.reverse, "-factor * y_bar", "Ganin & Lempitsky 2015, arXiv:1409.7495",
        in_maps=BY_NAME,
    ),
    _identity(scaling.stop, "0", in_maps=BY_NAME),
    _identity(scaling.mask, "y_bar where mask, else 0", **_LINEAR),
    _identity(
        scaling.normalize, "y_bar / |y_bar|", "Hazan et al. 2015, arXiv:1507.02030",
        forward=False, in_maps=BY_NAME,
    ),
    _identity(replacing.replace, "by(y_bar), or by", **_LINEAR),
    _identity(
        replacing.zero_nonfinite, "y_bar where finite, else 0", forward=False, in_maps=BY_NAME
    ),
    _identity(
        replacing.add_noise, "y_bar + stddev * normal", "Neelakantan et al. 2015, arXiv:1511.06807",
        forward=False,
    ),
    _identity(replacing.penalize, "y_bar + weight * grad(penalty)(x)", forward=False),
    _identity(
        replacing.z_loss, "y_bar + weight * grad(mean(logsumexp(x)**2))",
        "Chowdhery et al. 2022, arXiv:2204.02311", forward=False,
    ),
    _identity(
        clipping.clip_by_value, "clip(y_bar, low, high)", "Mikolov 2012, PhD thesis", **_NONLINEAR
    ),
    _identity(
        clipping.clip_by_norm, "y_bar * min(1, max_norm / |y_bar|), leaf by leaf", PASCANU,
        **_NONLINEAR,
    ),
    _identity(
        clipping.clip_by_global_norm, "y_bar * min(1, max_norm / |y_bar|), jointly", PASCANU,
        **_NONLINEAR,
    ),
    _identity(
        clipping.clip_adaptive, "y_bar * min(1, clipping * max(|x|, eps) / |y_bar|), by unit",
        "Brock et al. 2021, arXiv:2102.06171", **_NONLINEAR,
    ),
    _identity(
        clipping.clip_per_example, "y_bar * min(1, max_norm / |y_bar|), by example",
        "Abadi et al. 2016, arXiv:1607.00133", **_NONLINEAR,
    ),
    Entry(through.straight_through, "fn(x)", "vjp(surrogate, x)(y_bar)", BENGIO),
    Entry(rounding.round, "round(x)", "y_bar", BENGIO, in_maps=BY_NAME),
    Entry(rounding.floor, "floor(x)", "y_bar", BENGIO, in_maps=BY_NAME),
    Entry(rounding.ceil, "ceil(x)", "y_bar", BENGIO, in_maps=BY_NAME),
    Entry(rounding.sign, "sign(x)", "[|x| <= window] * y_bar", COURBARIAUX, in_maps=BY_NAME),
    Entry(rounding.step, "[x >= 0]", "y_bar", BENGIO, in_maps=BY_NAME),
    Entry(rounding.clip, "clip(x, low, high)", "y_bar", BENGIO, **_LINEAR),
    Entry(rounding.threshold, "x where x > level, else fill", "y_bar", BENGIO, in_maps=BY_NAME),
    Entry(
        selections.argmax_one_hot, "one_hot(argmax(x))", "vjp(softmax, x / temperature)(y_bar)",
        "Jang et al. 2017, arXiv:1611.01144", in_maps=BY_NAME,
    ),
    Entry(
        selections.top_k_mask, "[x_i among the k largest]", "y_bar",
        "Ramanujan et al. 2020, arXiv:1911.13299", **_LINEAR,
    ),
    Entry(
        sampling.gumbel_softmax, "softmax((logits + g) / temperature), or its one-hot",
        "that of the softmax", "Jang et al. 2017, arXiv:1611.01144",
    ),
    Entry(
        sampling.categorical, "one-hot sample of softmax(logits)", "vjp(softmax, logits)(y_bar)",
        "Hafner et al. 2021, arXiv:2010.02193",
    ),
    Entry(sampling.bernoulli, "sample of Bernoulli(p)", "y_bar", BENGIO),
    Entry(
        vq.vector_quantize, "nearest code to z", "y_bar to z; codes from the loss",
        "van den Oord et al. 2017, arXiv:1711.00937",
    ),
    Entry(
        quantisation.fake_quantize, "(clip(round(x/scale) + zero, low, high) - zero) * scale",
        "[in range] * y_bar", JACOB, **_LINEAR,
    ),
    Entry(
        quantisation.fake_quantize_symmetric, "fake_quantize, scale from max|x|", "y_bar",
        "Krishnamoorthi 2018, arXiv:1806.08342", in_maps=BY_NAME,
    ),
    Entry(
        quantisation.fake_quantize_affine, "fake_quantize, range from min(x), max(x)", "y_bar",
        JACOB, in_maps=BY_NAME,
    ),
    Entry(
        learned.lsq, "round(clip(x/step, low, high)) * step", "[in range] * y_bar; and to step",
        "Esser et al. 2020, arXiv:1902.08153",
    ),
    Entry(
        learned.pact, "clip(x, 0, alpha), quantised", "[0 < x < alpha] * y_bar; rest to alpha",
        "Choi et al. 2018, arXiv:1805.06085",
    ),
    Entry(
        low_bits.dorefa_weights, "2 * quantise(tanh(w) / (2 max|tanh w|) + 1/2) - 1",
        "natural, through the rounding", DOREFA,
    ),
    Entry(low_bits.dorefa_activations, "quantise(clip(x, 0, 1))", "[0 <= x <= 1] * y_bar", DOREFA),
    _identity(low_bits.dorefa_gradients, "y_bar, rounded with noise", DOREFA, forward=False),
    Entry(
        low_bits.binarize, "mean|w| * sign(w)", "mean|w| [|w| <= 1] y_bar + that of the mean",
        "Rastegari et al. 2016, arXiv:1603.05279",
    ),
    _spike(sg.superspike, "1 / (1 + beta |v|)^2", ZENKE_GANGULI),
    _spike(sg.fast_sigmoid, "1 / (1 + slope |v|)^2", ZENKE_GANGULI),
    _spike(
        sg.sparse_fast_sigmoid, "[|v| < bound] / (1 + slope |v|)^2",
        "Perez-Nieves & Goodman 2021, arXiv:2105.08810",
    ),
    _spike(sg.softsign, "alpha / (2 (1 + alpha |v|)^2)", ZENKE_GANGULI),
    _spike(
        sg.q_pseudo_spike, "(1 + 2 |v| / (alpha - 1))^-alpha",
        "Herranz-Celotti & Rouat 2022, arXiv:2202.00282",
    ),
    _spike(sg.log_abs, "alpha / (1 + alpha |v|)", SPIKINGJELLY),
    _spike(sg.clipped_inverse, "min(alpha, 1 / |v|)", SPIKINGJELLY),
    _spike(
        sg.s2nn, "sigmoid'(alpha v) below, beta / (1 + v) above",
        "Suetake et al. 2022, arXiv:2201.10879",
    ),
    _spike(sg.sigmoid, "alpha s (1 - s), s = sigmoid(alpha v)", ZENKE_VOGELS),
    _spike(
        sg.tanh, "(1 - tanh(alpha v)^2)", "Woźniak et al. 2020, Nature Machine Intelligence 2"
    ),
    _spike(
        sg.arctan, "alpha / (2 (1 + (pi alpha v / 2)^2))", "Fang et al. 2021, arXiv:2007.05785"
    ),
    _spike(sg.erf, "alpha / sqrt(pi) exp(-(alpha v)^2)", WU),
    _spike(sg.gaussian, "N(v | 0, sigma^2)", "Yin et al. 2020, arXiv:2005.11633"),
    _spike(
        sg.multi_gaussian, "((1 + h) N(v | 0, sigma^2) - h N(v | +-sigma, (s sigma)^2))",
        "Yin et al. 2021, arXiv:2103.12593",
    ),
    _spike(
        sg.exponential, "alpha / 2 exp(-alpha |v|)", "Shrestha & Orchard 2018, arXiv:1810.08646"
    ),
    _spike(sg.square_wave_fourier, "4 / T sum(cos(2 pi (2 i - 1) v / T))", SPIKINGJELLY),
    _spike(sg.straight_through, "1", BENGIO),
    _spike(sg.hard_tanh, "[|v| <= 1]", COURBARIAUX),
    _spike(sg.rectangle, "[|v| < width / 2] / width", WU),
    _spike(sg.triangle, "gamma max(0, 1 - |v|)", "Bellec et al. 2018, arXiv:1803.09574"),
    _spike(sg.piecewise_linear, "max(0, 1 - beta |v|)", ZENKE_VOGELS),
    _spike(sg.piecewise_quadratic, "alpha max(0, 1 - alpha |v|)", WU),
    _spike(sg.piecewise_leaky_relu, "1 / (2 w) where |v| <= w, else c", SPIKINGJELLY),
    _spike(sg.leaky_relu, "k where v >= 0, else leak", "Eshraghian et al. 2023, arXiv:2109.12894"),
    _spike(
        sg.log_tailed_relu, "alpha, 1 from 0, 1 / v from 1", "Cai et al. 2017, arXiv:1702.00953"
    ),
)  # fmt: skip


def register_names() -> None:
    """Register what serves in override maps without options under its name."""
    for entry in CATALOGUE:
        if entry.in_maps == BY_NAME:
            RegisterGradient(entry.name)(entry.function)
