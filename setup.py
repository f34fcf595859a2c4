"""Maps the top-level folders `pipelines` and `benchmarks` into the package; everything else is in pyproject.toml."""

from setuptools import find_packages, setup

MAPPED = ("pipelines", "benchmarks")

packages = find_packages(include=["clever_fast", "clever_fast.*"])
for folder in MAPPED:
    packages += [f"clever_fast.{name}" for name in find_packages(include=[folder, f"{folder}.*"])]

setup(
    packages=packages,
    package_dir={f"clever_fast.{folder}": folder for folder in MAPPED},
)
