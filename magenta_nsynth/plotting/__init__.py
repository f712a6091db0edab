"""Pictures: rainbowgrams, curves of embeddings, figures of many, pages that play.

Matplotlib is imported here first, for all modules of this package.
"""

import contextlib
import os
import sys


def _import_matplotlib() -> None:
    """Imports matplotlib whatever MPLBACKEND says.

    Matplotlib refuses to be imported where that names a backend which isn't installed,
    and every notebook hands its own on to the commands that it starts. Figures here
    need none. A backend that there is stays the one of who uses pyplot.
    """
    if "matplotlib" in sys.modules:
        return
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    if backend:
        with contextlib.suppress(ValueError):
            matplotlib.rcParams["backend"] = backend


_import_matplotlib()
