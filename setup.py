"""The one step pyproject.toml cannot express: compiling the native rasteriser while the package is installed."""

import importlib.util
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent


def _load_builder():
    """``ffavatar/render/build.py`` by path: importing the package would need torch, which an isolated build lacks."""
    spec = importlib.util.spec_from_file_location("ffavatar_native_build", ROOT / "src/ffavatar/render/build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class BuildNative(build_ext):
    """Builds the shared library; without a compiler it says so and lets the installation go on."""

    def run(self) -> None:
        builder = _load_builder()
        in_place = self.inplace or getattr(self, "editable_mode", False)
        folder = ROOT / "src/ffavatar/render" if in_place else Path(self.build_lib) / "ffavatar/render"
        self._library = None
        try:
            self._library = str(builder.build(folder))
        except builder.BuildError as error:
            print(
                f"WARNING: the native rasteriser was not built: {error}\n"
                "WARNING: ffavatar works without it, many times slower (torch backend). Install a C++ compiler or "
                "`pip install ziglang`, then run `python -m ffavatar.render.build`.",
                file=sys.stderr,
            )

    def get_outputs(self) -> list[str]:
        return [self._library] if getattr(self, "_library", None) else []

    def get_output_mapping(self) -> dict[str, str]:
        return {}


class PlatformWheel(bdist_wheel):
    """The library has a plain C interface: one wheel per platform serves every Python version."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


setup(
    ext_modules=[Extension("ffavatar.render._native", sources=[])],
    cmdclass={"build_ext": BuildNative, "bdist_wheel": PlatformWheel},
)
