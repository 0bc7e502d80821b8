"""Record what zennit and captum compute on a small network, for the tests of relevance.

Run by hand, in an environment with torch, zennit and captum: python record_relevance.py
"""

import sys
import types
from pathlib import Path

# zennit names classes of torchvision in its canonisers, which are not used here.
for module in ("torchvision", "torchvision.models"):
    sys.modules[module] = types.ModuleType(module)
for module, classes in {"resnet": ("Bottleneck", "BasicBlock"), "vgg": ("VGG",)}.items():
    stand_in = types.ModuleType(f"torchvision.models.{module}")
    for name in classes:
        setattr(stand_in, name, type(name, (), {}))
    sys.modules[stand_in.__name__] = stand_in

import numpy as np  # noqa: E402
import torch  # noqa: E402
from captum.attr import DeepLift  # noqa: E402
from zennit import composites, rules  # noqa: E402
from zennit.core import Composite  # noqa: E402

torch.manual_seed(0)
torch.set_default_dtype(torch.float64)


def network(activation=torch.nn.ReLU, pool=torch.nn.MaxPool2d):
    return torch.nn.Sequential(
        torch.nn.Conv2d(2, 4, 3, padding=1),
        activation(),
        pool(2),
        torch.nn.Conv2d(4, 3, 3),
        activation(),
        torch.nn.Flatten(),
        torch.nn.Linear(12, 5),
        activation(),
        torch.nn.Linear(5, 3),
    )


def everywhere(make):
    kinds = (torch.nn.Conv2d, torch.nn.Linear)

    def choose(ctx, name, module):
        if isinstance(module, kinds):
            return make()
        if isinstance(module, torch.nn.AvgPool2d):
            return rules.Norm()
        return rules.Pass() if isinstance(module, (torch.nn.ReLU, torch.nn.Tanh)) else None

    return Composite(module_map=choose)


class Recorder:
    def __init__(self):
        self.data = {}

    def lrp(self, name, model, composite, x):
        x = x.clone().requires_grad_()
        with composite.context(model) as modified:
            y = modified(x)
            y.backward(torch.nn.functional.one_hot(y.argmax(1), 3) * y.detach())
        self.data[name] = x.grad.numpy()


LRP = {
    "epsilon": everywhere(lambda: rules.Epsilon(0.1)),
    "zero": everywhere(lambda: rules.Epsilon(1e-12)),
    "gamma": everywhere(lambda: rules.Gamma(0.25)),
    "alpha_beta": everywhere(lambda: rules.AlphaBeta(2, 1)),
    "z_plus": everywhere(rules.ZPlus),
    "epsilon_plus": composites.EpsilonPlus(),
    "epsilon_plus_flat": composites.EpsilonPlusFlat(),
    "epsilon_alpha2_beta1": composites.EpsilonAlpha2Beta1(),
    "epsilon_alpha2_beta1_flat": composites.EpsilonAlpha2Beta1Flat(),
    "epsilon_gamma_box": composites.EpsilonGammaBox(low=-3.0, high=3.0),
}

recorder = Recorder()
relu, tanh = network(), network(torch.nn.Tanh, torch.nn.AvgPool2d)
relu_average = network(pool=torch.nn.AvgPool2d)
for other in (tanh, relu_average):
    other.load_state_dict(relu.state_dict())
x = torch.randn(4, 2, 8, 8).clamp(-3, 3)
for name, composite in LRP.items():
    recorder.lrp(f"lrp/{name}", relu, composite, x)
recorder.lrp("lrp_tanh/epsilon", tanh, LRP["epsilon"], x)
baseline = 0.1 * torch.randn(4, 2, 8, 8)
for name, model in {"deeplift": relu_average, "deeplift_tanh": tanh}.items():
    recorder.data[name] = (
        DeepLift(model).attribute(x, baselines=baseline, target=1).detach().numpy()
    )
np.savez_compressed(
    Path(__file__).with_name("relevance.npz"),
    x=x.numpy(),
    baseline=baseline.numpy(),
    logits=relu(x).detach().numpy(),
    **{f"weights/{k}": v.numpy() for k, v in relu.state_dict().items()},
    **recorder.data,
)
