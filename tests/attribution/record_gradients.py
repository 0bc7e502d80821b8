"""Record what captum computes on the network of relevance.npz, for the gradient methods' tests.

Run by hand, in an environment with torch and captum: python record_gradients.py
"""

from pathlib import Path

import numpy as np
import torch
from captum import attr

HERE = Path(__file__).parent
SAMPLES, NOISE = 20_000, 0.3

torch.manual_seed(0)
torch.set_default_dtype(torch.float64)
data = np.load(HERE / "relevance.npz")
network = torch.nn.Sequential(
    torch.nn.Conv2d(2, 4, 3, padding=1),
    torch.nn.ReLU(),
    torch.nn.MaxPool2d(2),
    torch.nn.Conv2d(4, 3, 3),
    torch.nn.ReLU(),
    torch.nn.Flatten(),
    torch.nn.Linear(12, 5),
    torch.nn.ReLU(),
    torch.nn.Linear(5, 3),
)
network.load_state_dict({k: torch.tensor(data[f"weights/{k}"]) for k in network.state_dict()})
x, baseline = torch.tensor(data["x"]), torch.tensor(data["baseline"])
target = torch.tensor([2, 0, 1, 1])


def numbers(a):
    return a.detach().numpy()


integrated = attr.IntegratedGradients(network)
recorded = {"target": target.numpy(), "noise": NOISE}
recorded["saliency"] = attr.Saliency(network).attribute(x, target)
recorded["gradient"] = attr.Saliency(network).attribute(x, target, abs=False)
recorded["input_x_gradient"] = attr.InputXGradient(network).attribute(x, target)
recorded["integrated/gauss_legendre"], recorded["error/gauss_legendre"] = integrated.attribute(
    x, baseline, target, n_steps=20, method="gausslegendre", return_convergence_delta=True
)
recorded["integrated/trapezoid"] = integrated.attribute(
    x, baseline, target, n_steps=20, method="riemann_trapezoid"
)
recorded["guided_backprop"] = attr.GuidedBackprop(network).attribute(x, target)
recorded["deconvnet"] = attr.Deconvolution(network).attribute(x, target)
for name, place in {"first": 1, "last": 4}.items():
    cam = attr.LayerGradCam(network, network[place])
    for kind, positive in {"positive": True, "signed": False}.items():
        recorded[f"grad_cam/{name}/{kind}"] = cam.attribute(x, target, relu_attributions=positive)[
            :, 0
        ]
recorded["guided_grad_cam"] = attr.GuidedGradCam(network, network[4]).attribute(
    x, target, interpolate_mode="bilinear"
)
# torch's normal noise is absolute, and differs from ours: only what it tends to is compared.
for name in ("smoothgrad", "vargrad"):
    recorded[name] = attr.NoiseTunnel(attr.Saliency(network)).attribute(
        x,
        nt_type=name,
        nt_samples=SAMPLES,
        nt_samples_batch_size=500,
        stdevs=NOISE,
        target=target,
        abs=False,
    )
recorded["gradient_shap"] = sum(
    attr.GradientShap(network).attribute(x, baseline, n_samples=500, stdevs=0.0, target=target)
    for _ in range(SAMPLES // 500)
) / (SAMPLES // 500)
np.savez_compressed(
    HERE / "gradients.npz",
    **{k: numbers(v) if torch.is_tensor(v) else v for k, v in recorded.items()},
)
