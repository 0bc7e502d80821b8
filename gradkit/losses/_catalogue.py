"""The table of all losses, which `gradkit rules` shows."""

from __future__ import annotations

from gradkit._entry import Entry
from gradkit.losses import _contrastive as contrastive
from gradkit.losses import _crf as crf
from gradkit.losses import _divergences as divergences
from gradkit.losses import _entmax as entmax
from gradkit.losses import _evidential as evidential
from gradkit.losses import _gaussian_process as gaussian_process
from gradkit.losses import _grad_cache as grad_cache
from gradkit.losses import _hmm as hmm
from gradkit.losses import _linear_cross_entropy as linear
from gradkit.losses import _metric as metric
from gradkit.losses import _preference as preference
from gradkit.losses import _quantiles as quantiles
from gradkit.losses import _ranking as ranking
from gradkit.losses import _robust as robust
from gradkit.losses import _segmentation as segmentation
from gradkit.losses import _sinkhorn as transport
from gradkit.losses import _soft_dtw as soft_dtw
from gradkit.losses import _two_samples as two_samples

CATALOGUE: tuple[Entry, ...] = (
    Entry(
        linear.linear_cross_entropy, "logsumexp(z) - z[label], z = h W in blocks",
        "(softmax(z) - one_hot) * y_bar, in blocks", "Wijmans et al. 2025, arXiv:2411.09009",
    ),
    Entry(
        linear.linear_log_probs, "z[label] - logsumexp(z), z = h W in blocks",
        "(one_hot - softmax(z)) * y_bar, in blocks", "Wijmans et al. 2025, arXiv:2411.09009",
    ),
    Entry(
        divergences.linear_kl_divergence, "KL(teacher | student) of two heads, in blocks",
        "(q - p) * y_bar to the student's logits", "Hinton et al. 2015, arXiv:1503.02531",
    ),
    Entry(
        divergences.linear_js_divergence, "beta KL(p | m) + (1 - beta) KL(q | m), in blocks",
        "(1 - beta) q (log(q / m) - KL(q | m)) * y_bar", "Agarwal et al. 2024, arXiv:2306.13649",
    ),
    Entry(
        preference.dpo, "-log sigmoid(beta * margin)", "that of the value, reference held",
        "Rafailov et al. 2023, arXiv:2305.18290",
    ),
    Entry(
        preference.grpo, "-min(r A, clip(r) A) + beta KL", "that of the value, within the clip",
        "Shao et al. 2024, arXiv:2402.03300",
    ),
    Entry(
        contrastive.info_nce, "logsumexp_j(s_ij) - s_ii, s in blocks",
        "(softmax(s) - one_hot) * y_bar, in blocks", "van den Oord et al. 2018, arXiv:1807.03748",
    ),
    Entry(
        contrastive.siglip, "sum_j log(1 + exp(-t_ij s_ij)), s in blocks",
        "(sigmoid(s) - [i = j]) * y_bar, in blocks", "Zhai et al. 2023, arXiv:2303.15343",
    ),
    Entry(
        contrastive.supervised_contrastive, "logsumexp(s_i) - mean of s_ij in the class",
        "(softmax(s) - [same] / count) * y_bar, in blocks", "Khosla et al. 2020, arXiv:2004.11362",
    ),
    Entry(
        grad_cache.grad_cache, "encoder(params, inputs), in sub-batches",
        "that of the whole batch, recomputed", "Gao et al. 2021, arXiv:2101.06983",
    ),
    Entry(
        soft_dtw.soft_dtw, "-gamma log sum over alignments of exp(-cost / gamma)",
        "the expected alignment, times the cost's slope", "Cuturi & Blondel 2017, arXiv:1703.01541",
    ),
    Entry(
        soft_dtw.soft_dtw_from_cost, "-gamma log sum over alignments of exp(-cost / gamma)",
        "expected alignment * y_bar", "Cuturi & Blondel 2017, arXiv:1703.01541",
    ),
    Entry(
        soft_dtw.soft_dtw_divergence, "soft_dtw(x, y) - (soft_dtw(x, x) + soft_dtw(y, y)) / 2",
        "that of soft_dtw", "Blondel et al. 2021, arXiv:2010.08354",
    ),
    Entry(
        transport.sinkhorn, "min <P, C> + epsilon KL(P | a b^T)",
        "the plan, times the cost's slope", "Cuturi 2013, arXiv:1306.0895",
    ),
    Entry(
        transport.sinkhorn_from_cost, "min <P, C> + epsilon KL(P | a b^T)", "plan * y_bar",
        "Cuturi 2013, arXiv:1306.0895",
    ),
    Entry(
        transport.sinkhorn_divergence, "sinkhorn(x, y) - (sinkhorn(x, x) + sinkhorn(y, y)) / 2",
        "that of sinkhorn", "Feydy et al. 2019, arXiv:1810.08278",
    ),
    Entry(
        crf.crf_log_likelihood, "score(tags) - log sum over paths of exp(score)",
        "(indicators - marginals) * y_bar", "Lafferty et al. 2001",
    ),
    Entry(crf.crf_marginals, "p(tag at each step)", "by the passes' own derivatives"),
    Entry(
        crf.viterbi, "the best path and its score", "indicators of the path * s_bar",
        "Viterbi 1967",
    ),
    Entry(
        hmm.hmm_log_likelihood, "log sum over paths of probabilities", "posteriors * y_bar",
        "Rabiner 1989",
    ),
    Entry(
        gaussian_process.gp_log_likelihood, "log N(y; 0, K + diag(s))",
        "(a a^T - (K + diag(s))^-1) / 2 * y_bar to K, a = (K + diag(s))^-1 y",
        "Rasmussen & Williams 2006, equation 5.9",
    ),
    Entry(
        entmax.sparsemax_loss, "<p - y, z> + (|y|^2 - |p|^2) / 2, p = sparsemax(z)",
        "(p - y) * y_bar", "Martins & Astudillo 2016, arXiv:1602.02068",
    ),
    Entry(
        entmax.entmax_loss, "<p - y, z> + Omega(y) - Omega(p), p = entmax(z, alpha)",
        "(p - y) * y_bar", "Peters et al. 2019, arXiv:1905.05702",
    ),
    Entry(
        segmentation.softmax_focal_loss, "-(1 - p)^gamma log(p)",
        "that of the value, by the margin", "Lin et al. 2017, arXiv:1708.02002",
    ),
    Entry(
        segmentation.tversky_loss, "(1 - TP / (TP + alpha FP + beta FN))^focus",
        "that of the value; 0 where it is 0", "Salehi et al. 2017, arXiv:1706.05721",
    ),
    Entry(
        segmentation.lovasz_hinge, "Lovasz extension of the Jaccard loss at hinge errors",
        "the sorted differences of the Jaccard loss", "Berman et al. 2018, arXiv:1705.08790",
    ),
    Entry(
        segmentation.lovasz_softmax, "the same at 1 - p, mean over classes",
        "the sorted differences of the Jaccard loss", "Berman et al. 2018, arXiv:1705.08790",
    ),
    Entry(
        robust.robust_loss, "b / alpha ((s / b + 1)^(alpha / 2) - 1)",
        "closed forms in x, alpha and scale", "Barron 2019, arXiv:1701.03077",
    ),
    Entry(
        robust.bi_tempered_logistic_loss, "Bregman divergence of tempered probabilities",
        "q - escort * sum(q), q = (p - y) p^(t2 - t1)", "Amid et al. 2019, arXiv:1906.03361",
    ),
    Entry(
        quantiles.quantile_loss, "max(q e, (q - 1) e)", "-q or 1 - q; 0 at e = 0",
        "Koenker & Bassett 1978",
    ),
    Entry(
        quantiles.expectile_loss, "|tau - [e < 0]| e^2", "that of the value", "Newey & Powell 1987"
    ),
    Entry(
        quantiles.crps_gaussian, "e (2 Phi(z) - 1) + sigma (2 phi(z) - 1 / sqrt(pi))",
        "closed forms, at sigma = 0 too", "Gneiting et al. 2005",
    ),
    Entry(
        quantiles.crps_ensemble, "mean |x - y| - mean |x - x'| / 2",
        "sign(x - y) / n - ranks / n^2", "Gneiting & Raftery 2007",
    ),
    Entry(
        evidential.evidential_classification_loss,
        "expected squared error + weight * KL(Dirichlet | flat)",
        "closed form by trigamma", "Sensoy et al. 2018, arXiv:1806.01768",
    ),
    Entry(
        evidential.evidential_regression_loss, "-log Student-t + weight |d| (2 nu + alpha)",
        "that of the value; 0 for |d| at 0", "Amini et al. 2020, arXiv:1910.02600",
    ),
    Entry(
        ranking.approx_ndcg_loss, "1 - NDCG with smooth ranks", "that of the value",
        "Qin et al. 2010; Bruch et al. 2019",
    ),
    Entry(
        ranking.lambda_loss, "sum of weights of swaps * log2(1 + exp(-sigma (s_i - s_j)))",
        "that of the logistic loss, weights held", "Wang et al. 2018",
    ),
    Entry(
        metric.circle_loss, "log(1 + sum_n exp(..) sum_p exp(..))",
        "that of the value, weights held", "Sun et al. 2020, arXiv:2002.10857",
    ),
    Entry(
        metric.batch_hard_triplet_loss, "softplus(farthest positive - nearest negative)",
        "that of the two distances", "Hermans et al. 2017, arXiv:1703.07737",
    ),
    Entry(
        two_samples.mmd, "mean k(x, x') + mean k(z, z') - 2 mean k(x, z), in blocks",
        "the kernel's slope times differences, found with the value",
        "Gretton et al. 2012, JMLR 13",
    ),
    Entry(
        two_samples.energy_distance, "2 mean |x - z| - mean |x - x'| - mean |z - z'|, in blocks",
        "unit vectors between points, 0 where they coincide", "Székely & Rizzo 2013",
    ),
)  # fmt: skip
