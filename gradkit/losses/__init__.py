"""Losses whose gradients are better or cheaper than automatic differentiation's, or not in optax.

`optax.losses` has the others.
"""

from gradkit.losses._catalogue import CATALOGUE
from gradkit.losses._contrastive import info_nce, siglip, supervised_contrastive
from gradkit.losses._crf import crf_log_likelihood, crf_marginals, viterbi
from gradkit.losses._divergences import linear_js_divergence, linear_kl_divergence
from gradkit.losses._entmax import entmax_loss, sparsemax_loss
from gradkit.losses._evidential import evidential_classification_loss, evidential_regression_loss
from gradkit.losses._gaussian_process import gp_log_likelihood
from gradkit.losses._grad_cache import grad_cache
from gradkit.losses._hmm import hmm_log_likelihood
from gradkit.losses._linear_cross_entropy import linear_cross_entropy, linear_log_probs
from gradkit.losses._metric import batch_hard_triplet_loss, circle_loss
from gradkit.losses._preference import dpo, grpo
from gradkit.losses._quantiles import crps_ensemble, crps_gaussian, expectile_loss, quantile_loss
from gradkit.losses._ranking import approx_ndcg_loss, lambda_loss
from gradkit.losses._robust import bi_tempered_logistic_loss, robust_loss
from gradkit.losses._segmentation import (
    lovasz_hinge,
    lovasz_softmax,
    softmax_focal_loss,
    tversky_loss,
)
from gradkit.losses._sinkhorn import sinkhorn, sinkhorn_divergence, sinkhorn_from_cost
from gradkit.losses._soft_dtw import soft_dtw, soft_dtw_divergence, soft_dtw_from_cost
from gradkit.losses._two_samples import energy_distance, mmd

__all__ = [
    "CATALOGUE",
    "approx_ndcg_loss",
    "batch_hard_triplet_loss",
    "bi_tempered_logistic_loss",
    "circle_loss",
    "crf_log_likelihood",
    "crf_marginals",
    "crps_ensemble",
    "crps_gaussian",
    "dpo",
    "energy_distance",
    "entmax_loss",
    "evidential_classification_loss",
    "evidential_regression_loss",
    "expectile_loss",
    "gp_log_likelihood",
    "grad_cache",
    "grpo",
    "hmm_log_likelihood",
    "info_nce",
    "lambda_loss",
    "linear_cross_entropy",
    "linear_js_divergence",
    "linear_kl_divergence",
    "linear_log_probs",
    "lovasz_hinge",
    "lovasz_softmax",
    "mmd",
    "quantile_loss",
    "robust_loss",
    "siglip",
    "sinkhorn",
    "sinkhorn_divergence",
    "sinkhorn_from_cost",
    "soft_dtw",
    "soft_dtw_divergence",
    "soft_dtw_from_cost",
    "softmax_focal_loss",
    "sparsemax_loss",
    "supervised_contrastive",
    "tversky_loss",
    "viterbi",
]
