"""What the command line is tried on."""

FILES = {
    "good/waves.py": """
        from dataclasses import dataclass
        import gradkit, jax.numpy as jnp
        from helper import SCALE

        @dataclass
        class Settings:
            scale: float = SCALE

        @gradkit.RegisterGradient("CliWave")
        def wave_gradient(op, y_bar):
            return y_bar * jnp.cos(op.inputs[0])

        @gradkit.verify.case(0.5, order=2)
        @gradkit.verify.case(jnp.arange(3.0), name="vector")
        @gradkit.custom_gradient
        def wave(x):
            return jnp.sin(x), lambda y_bar: y_bar * jnp.cos(x)

        def plain(x, n):
            return jnp.square(x).sum() * n
        """,
    "good/helper.py": "SCALE = 2.0",
    "good/twin.py": """
        import gradkit

        @gradkit.RegisterGradient("CliWave")
        def wave_gradient(op, y_bar):
            return y_bar
        """,
    "wrong/doubled.py": """
        import gradkit, jax.numpy as jnp

        @gradkit.verify.case(0.5)
        @gradkit.custom_gradient
        def doubled(x):
            return jnp.sin(x), lambda y_bar: 2 * y_bar * jnp.cos(x)
        """,
    "raises/failing.py": """
        import gradkit

        @gradkit.verify.case(0.5)
        def failing(x):
            raise ValueError("not today")
        """,
    "raises/leaving.py": """
        import gradkit

        @gradkit.verify.case(0.5)
        def leaving(x):
            raise SystemExit(0)
        """,
    "unsure/unsure.py": """
        import gradkit, jax.numpy as jnp
        gradkit.verify.case(-1.0)(logarithm := lambda x: jnp.log(x))
        """,
    "package/__init__.py": "",
    "package/inner.py": """
        import gradkit
        from .factor import FACTOR

        @gradkit.verify.case(2.0)
        def scaled(x):
            return FACTOR * x
        """,
    "package/factor.py": "FACTOR = 3.0",
    "broken.py": "one = 1\ntwo = one / 0\n",
    "unreadable.py": "def f(:\n",
    "leaves.py": "import sys\nsys.exit(3)\n",
    "caseless.py": "x = 1\n",
    "rules.py": """
        import gradkit, jax.numpy as jnp

        @gradkit.custom_gradient
        def square(x, scale=2.0):
            return x * x * scale, lambda y_bar: (2 * x * scale * y_bar, jnp.sum(x * x * y_bar))

        @gradkit.op("CliRulesHuber")
        def huber(x, *, delta=1.0):
            return jnp.where(abs(x) <= delta, 0.5 * x**2, delta * (abs(x) - 0.5 * delta))

        @gradkit.RegisterGradient("CliRulesHuber")
        def huber_gradient(op, y_bar):
            return jnp.clip(op.inputs[0], -1, 1) * y_bar

        @gradkit.verify.case(2.0)
        @gradkit.custom_gradient
        def declared(x):
            return x * x, lambda y_bar: 2 * x * y_bar

        @gradkit.custom_gradient
        def conv(image):
            return image.sum(axis=6), lambda y_bar: y_bar

        class Layer:
            @gradkit.custom_gradient
            def method(self, x):
                return self.scale * x, lambda y_bar: self.scale * y_bar

            @staticmethod
            @gradkit.custom_gradient
            def triple(x):
                return 3 * x, lambda y_bar: 3 * y_bar

        alias = square
        """,
    "pointless.py": """
        import gradkit

        @gradkit.custom_gradient
        def conv(image):
            return image.sum(axis=6), lambda y_bar: y_bar
        """,
    "made.py": """
        import gradkit, jax.numpy as jnp

        @gradkit.verify.case(2.0, 3)
        @gradkit.op("CliMade")
        def power(x, n):
            return x**n

        @gradkit.RegisterGradient("CliMade")
        def power_gradient(op, y_bar):
            x, n = op.inputs
            return n * x ** (n - 1) * y_bar, None

        def one(): return 2.0, 3
        def several(): return [(2.0, 3), (0.5, 2)]
        def generated(): yield from several()
        def raising(): raise KeyError("lost")
        def needing(x): return (x,)
        def array(): return jnp.ones(3)
        def unpacked(): return [2.0, 3]
        def nothing(): return []
        def endless():
            while True:
                yield 2.0, 3
        """,
    "clipped.py": """
        import gradkit, jax.numpy as jnp

        @gradkit.custom_gradient
        def sign(x):
            return jnp.sign(x), lambda y_bar: jnp.where(abs(x) < 1, y_bar, 0)

        def clip(x): return jnp.clip(x, -1, 1)
        def near(x): return abs(x) < 10
        """,
    "interrupted.py": """
        import gradkit

        @gradkit.verify.case(1.0)
        def first(x):
            return x * x

        @gradkit.verify.case(1.0)
        def second(x):
            raise KeyboardInterrupt

        @gradkit.verify.case(1.0)
        def third(x):
            return x * x
        """,
    "workers.py": """
        import os, pathlib, time
        import gradkit

        @gradkit.verify.case(1.0)
        def quick(x):
            return x * x

        @gradkit.verify.case(1.0)
        def dies(x):
            os._exit(7)

        @gradkit.verify.case(2.0)
        @gradkit.custom_gradient
        def wrong(x):
            return x * x, lambda y_bar: x * y_bar

        @gradkit.verify.case(1.0)
        def waits(x):
            time.sleep(60)

        @gradkit.verify.case(1.0)
        def marks(x):
            pathlib.Path("mark").write_text("here")
            time.sleep(60)
        """,
}
