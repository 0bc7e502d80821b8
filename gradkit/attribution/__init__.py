"""Attribution: which parts of an input an output of a model comes from."""

from gradkit.attribution._composite import (
    epsilon_alpha2_beta1,
    epsilon_alpha2_beta1_flat,
    epsilon_gamma_box,
    epsilon_plus,
    epsilon_plus_flat,
)
from gradkit.attribution._deeplift import deeplift
from gradkit.attribution._gradcam import grad_cam, guided_grad_cam
from gradkit.attribution._guided import deconvnet, guided_backprop
from gradkit.attribution._integrated import Integrated, integrated_gradients
from gradkit.attribution._lrp import lrp
from gradkit.attribution._lrp_rules import Layer, alpha_beta, epsilon, flat, gamma, z_box, z_plus
from gradkit.attribution._saliency import input_x_gradient, saliency
from gradkit.attribution._shap import gradient_shap
from gradkit.attribution._show import show
from gradkit.attribution._smooth import smooth_grad, var_grad

__all__ = [
    "Integrated",
    "Layer",
    "alpha_beta",
    "deconvnet",
    "deeplift",
    "epsilon",
    "epsilon_alpha2_beta1",
    "epsilon_alpha2_beta1_flat",
    "epsilon_gamma_box",
    "epsilon_plus",
    "epsilon_plus_flat",
    "flat",
    "gamma",
    "grad_cam",
    "gradient_shap",
    "guided_backprop",
    "guided_grad_cam",
    "input_x_gradient",
    "integrated_gradients",
    "lrp",
    "saliency",
    "show",
    "smooth_grad",
    "var_grad",
    "z_box",
    "z_plus",
]
