"""What ran: the versions of gradkit and JAX, and the device."""

from __future__ import annotations

from importlib import metadata

import jax


def version_text() -> str:
    """`gradkit 0.1.0, JAX 0.10.2, cpu`."""
    device = jax.devices()[0]
    kind = "" if device.device_kind == device.platform else f" ({device.device_kind})"
    return f"gradkit {version()}, JAX {jax.__version__}, {device.platform}{kind}"


def version() -> str:
    """The version of gradkit."""
    return metadata.version("gradkit")
