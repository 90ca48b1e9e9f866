"""Builds wheels that carry the top-level folders which the app reads; pyproject.toml says everything else."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
BUNDLED = ("templates", "migrations")


class BuildWithFolders(build_py):
    """Copies templates and migrations to where ``app.paths`` looks for them; an editable install has them already."""

    def run(self) -> None:
        """Build the packages, then add the folders."""
        super().run()
        if self.editable_mode:
            return
        for folder in BUNDLED:
            target = Path(self.build_lib) / "app" / "bundled" / folder
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(ROOT / folder, target, ignore=shutil.ignore_patterns("__pycache__"))


setup(cmdclass={"build_py": BuildWithFolders})
