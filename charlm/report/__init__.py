"""The report of all results, and its figures.

Raises ModuleNotFoundError if a package of the extra `report` is not installed.
"""

from importlib.util import find_spec

for _name in ("jinja2", "matplotlib"):
    if find_spec(_name) is None:
        raise ModuleNotFoundError(
            f"charlm.report needs {_name}, part of charlm's extra 'report'; install it with: "
            'pip install ".[report]" in the project\'s folder',
            name=_name,
        )
