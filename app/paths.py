"""Where the project's own files lie: in a checkout beside the packages, in an installed wheel inside ``app``."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_BUNDLED = _PACKAGE / "bundled"
"""Where setup.py puts the top-level folders into a wheel; a checkout has no such folder."""

ROOT = _PACKAGE.parent
PYPROJECT = ROOT / "pyproject.toml"
TEMPLATES = (_BUNDLED if _BUNDLED.is_dir() else ROOT) / "templates"
MIGRATIONS = (_BUNDLED if _BUNDLED.is_dir() else ROOT) / "migrations"
STATIC = _PACKAGE / "web" / "static"
