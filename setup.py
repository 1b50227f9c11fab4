"""What pyproject.toml cannot say: the configs travel inside the package, as ``tasks.configs``."""

from setuptools import find_namespace_packages, setup

setup(
    packages=[*find_namespace_packages(include=["family*", "tasks*"]), "tasks.configs"],
    package_dir={"tasks.configs": "configs"},
)
