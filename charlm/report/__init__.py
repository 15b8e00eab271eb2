"""The page of all results and its figures.

Raises ModuleNotFoundError where what it needs beyond the library's own requirements is missing.
"""

from importlib.util import find_spec

for _name in ("jinja2", "matplotlib", "rapidfuzz"):
    if find_spec(_name) is None:
        raise ModuleNotFoundError(
            f"charlm.report needs {_name}, which charlm's extra 'report' brings: "
            'pip install ".[report]" in the project\'s folder',
            name=_name,
        )
