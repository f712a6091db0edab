"""The original's Python functions, so that notebooks written for it run again.

Change the imports, and nothing else:

    from magenta.models.nsynth import utils              # before
    from magenta.models.nsynth.wavenet import fastgen

    from magenta_nsynth.compat import utils              # now
    from magenta_nsynth.compat.wavenet import fastgen

The functions have the original's arguments, defaults, shapes and files, and give its
numbers. What needed a TensorFlow session raises an error that names the replacement.
New code is better written with `magenta_nsynth` itself.
"""

from magenta_nsynth.importing import tensorflow_import

with tensorflow_import():  # before the modules here, which use it, are imported
    import keras  # noqa: F401
    import tensorflow  # noqa: F401
