"""Packaging: `pip install .` installs the package and the commands of bin/."""

import pathlib
import re
import shutil

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = pathlib.Path(__file__).parent
VERSION = re.search(
    r'^__version__ = "(.+)"',
    (HERE / "magenta_nsynth" / "__init__.py").read_text(encoding="utf-8"),
    re.MULTILINE,
)[1]

# The last release of tensorflow-io has no wheels for Python 3.13 and later, nor for
# Windows, and its native library loads only with TensorFlow 2.16 and 2.17. Where it is
# not available, the newest TensorFlow is used without it.
WITH_IO = 'python_version < "3.13" and sys_platform != "win32"'
WITHOUT_IO = 'python_version >= "3.13" or sys_platform == "win32"'

# Later versions require NumPy 2, which TensorFlow 2.17 does not support.
PANDAS = [f"pandas>=2.1,<3; {WITH_IO}", f"pandas>=2.1; {WITHOUT_IO}"]
PYARROW = [f"pyarrow>=14,<21; {WITH_IO}", f"pyarrow>=14; {WITHOUT_IO}"]

# Paths such as s3://bucket/notes; for the tests, with a local server.
# Earlier versions can't write a file only if it is new.
CLOUD = ["adlfs>=2024.12", "fsspec>=2024.12", "gcsfs>=2024.12", "s3fs>=2024.12"]

RUFF = "ruff==0.17.6"

# What an installed package has of checkpoints/: `magenta_nsynth.bundled` finds it.
BUNDLED = ("small", "notes")


class BuildWithData(build_py):
    """Copies the bundled checkpoint and sounds into the package that is built."""

    def run(self) -> None:
        """As the usual step, and copies them."""
        super().run()
        if self.editable_mode:  # the package stays in the clone, beside them
            return
        target = pathlib.Path(self.build_lib, "magenta_nsynth", "bundled")
        shutil.rmtree(target, ignore_errors=True)  # another version's
        for name in BUNDLED:
            shutil.copytree(HERE / "checkpoints" / name, target / name)


setup(
    cmdclass={"build_py": BuildWithData},
    name="magenta-nsynth",
    version=VERSION,
    description="NSynth for TensorFlow 2, loading the released weights",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["magenta_nsynth", "magenta_nsynth.*"]),
    package_data={
        "magenta_nsynth": ["py.typed"],
        "magenta_nsynth.plotting": ["*.html", "*.js"],
    },
    scripts=sorted(
        str(path.relative_to(HERE)) for path in (HERE / "bin").glob("nsynth_*")
    ),
    install_requires=[
        f"tensorflow>=2.16,<2.18; {WITH_IO}",
        f"tensorflow-io==0.37.1; {WITH_IO}",
        f"tensorflow>=2.18; {WITHOUT_IO}",
        "av>=17.1",
        "numpy>=1.26",
        "scipy>=1.11",
        "absl-py>=2.0",
        "matplotlib>=3.8",
        "requests>=2.30",
        "urllib3>=2.2",
        # tf.summary needs it, and newer TensorFlow does not install it.
        "tensorboard>=2.16",
    ],
    extras_require={
        "dev": [
            "build>=1.2",
            "codespell==2.4.3",
            "fsspec>=2024.12",
            "hypothesis>=6",
            "ipykernel>=6",
            "moto[server]>=5",
            "mypy==2.4.1",
            "nbclient>=0.10",
            "pytest>=8",
            "pytest-xdist>=3.6",
            RUFF,
            "s3fs>=2024.12",
            "soundfile>=0.13",
        ],
        "docs": [
            "mkdocs==1.6.1",
            "mkdocs-material==9.8.2",
            "mkdocstrings==1.0.8",
            "mkdocstrings-python==2.0.11",
            RUFF,  # formats signatures
        ],
        "notebook": ["jupyterlab>=4", *PANDAS],
        "parquet": [*PYARROW, *PANDAS],
        "beam": ["apache-beam>=2.60"],
        "cloud": CLOUD,
    },
)
