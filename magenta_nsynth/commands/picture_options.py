"""The options of pictures. Nothing here imports NumPy, TensorFlow or matplotlib."""

import dataclasses
import os

from magenta_nsynth.commands.options import Network, parse_grid
from magenta_nsynth.config import C2_HZ
from magenta_nsynth.errors import InputError
from magenta_nsynth.files import expand
from magenta_nsynth.generation.options import Generation
from magenta_nsynth.notes.inputs import Inputs
from magenta_nsynth.options import option, refuse_changed
from magenta_nsynth.plotting.options import FORMATS, Look
from magenta_nsynth.stores import storage

__all__ = ["BATCH_SIZE", "Additions", "PictureOutput", "RainbowgramOptions"]

BATCH_SIZE = 16  # the default of --batch_size
_OTHER_FORMATS = (
    ".jpg", ".jpeg", ".gif", ".webp", ".tif", ".tiff", ".bmp", ".eps", ".html",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class PictureOutput:
    """Where pictures go, and their order."""

    save_path: str = option(
        "",
        "A figure of all sounds (.png, .svg or .pdf), or a folder for one file per "
        "sound.",
    )
    html: str = option(
        "",
        "Also write a web page into this folder, where a click on a picture of the "
        "figure plays its sound.",
    )
    grid: str = option("", "Rows x columns, such as 3x11; by default a square.")
    names: bool | None = option(
        None,
        "Write the name above each picture; by default if nothing else identifies it.",
    )
    format: str = option(
        "png",
        "The format of one file per sound.",
        choices=tuple(ending[1:] for ending in FORMATS),
    )
    skip_existing: bool = option(
        False, "Leave out files whose output exists, to resume an interrupted run."
    )
    num_workers: int = option(
        0, "Processes that draw one file per sound; 0 is one per core.", low=0
    )

    @property
    def is_figure(self) -> bool:
        """Whether all sounds go into one figure, or only on a page.

        Raises:
          InputError: no output, or a format that can't be written.
        """
        if not self.save_path:
            if self.html:
                return True
            raise InputError(
                f"Give --save_path: a figure ({', '.join(FORMATS)}), or a folder for "
                "one file per sound."
            )
        if storage.isdir(expand(self.save_path)) or self.save_path.endswith(os.sep):
            return False
        ending = os.path.splitext(self.save_path)[1].lower()
        if ending in _OTHER_FORMATS:
            raise InputError(
                f"{self.save_path}: pictures are written as {', '.join(FORMATS)}; give "
                "one of those, or a folder."
            )
        return ending in FORMATS

    @property
    def grid_size(self) -> tuple[int, int]:
        """The rows and columns of --grid, (0, 0) without it.

        Raises:
          InputError: another form.
        """
        return parse_grid(self.grid) or (0, 0)

    @property
    def default_sounds_path(self) -> str:
        """The folder of generated sounds if none is given."""
        base = os.path.splitext(self.save_path)[0] or self.html
        return f"{base.rstrip(os.sep)}_sounds"

    def check(self, look: Look) -> None:
        """Raises InputError for options that don't go together."""
        _ = self.grid_size
        if not self.is_figure:
            if self.html:
                raise InputError(
                    "--html needs one figure: give --save_path=figure.png, or none."
                )
            reason = "does nothing if each sound has its own file; leave it out."
            refuse_changed(self, reason, "grid")
            refuse_changed(look, reason, "title", "titles")
            refuse_changed(look, reason, "row_labels", "column_labels")
            return
        reason = "does nothing for one figure; leave it out."
        refuse_changed(self, reason, "skip_existing", "format", "num_workers")
        if not self.save_path:
            reason = "does nothing without a figure (--save_path); leave it out."
            refuse_changed(look, reason, "axis", "dpi", "height", "font")
        if look.titles:
            refuse_changed(self, "does nothing with --titles; leave it out.", "names")


@dataclasses.dataclass(frozen=True)
class RainbowgramOptions:
    """How sounds are drawn.

    The fields are arguments of `make_panel`.
    """

    transform: str = option(
        "cqt",
        "The constant-Q transform, or the STFT with bins of equal width.",
        choices=("cqt", "stft"),
    )
    peak_db: float = option(
        70.0, "The range of loudness from black to full colour, in dB."
    )
    hop_length: int = option(
        256, "Samples from column to column.", flag="transform_hop_length", low=1
    )
    fmin: float = option(C2_HZ, "CQT: the lowest bin, in Hz (C2).")
    num_bins: int = option(240, "CQT: the number of bins.", low=1)
    bins_per_octave: int = option(40, "CQT: bins per octave.", low=1)
    filter_scale: float = option(
        0.8, "CQT: smaller values are finer in time and broader in pitch."
    )
    n_fft: int = option(1024, "STFT: samples per window.", low=2)
    demodulate: bool = option(
        False,
        "Subtract from the phase what the pitch of each bin contributes, so that a "
        "steady partial keeps one colour.",
    )
    colormap: str = option("rainbow", "The matplotlib colour map of the phase.")

    def check(self) -> None:
        """Raises InputError for options of the other transform."""
        of_cqt = ("fmin", "num_bins", "bins_per_octave", "filter_scale")
        others = of_cqt if self.transform == "stft" else ("n_fft",)
        reason = f"does nothing with --transform={self.transform}; leave it out."
        refuse_changed(self, reason, *others)


@dataclasses.dataclass(frozen=True)
class Additions:
    """What is drawn in addition to the sounds."""

    embeddings: bool = option(
        False, "Draw the channels of the embedding as curves below each picture."
    )
    embeddings_path: str = option(
        "",
        "Read the embeddings from these .npy files, which are matched by name, instead "
        "of computing them with --checkpoint_path.",
    )
    reconstructions: bool = option(
        False, "Draw the network's reconstruction beside each sound."
    )
    reconstructions_path: str = option(
        "",
        "Read the reconstructions from these sounds, which are matched by name "
        "(gen_<stem>.wav), instead of generating them with --checkpoint_path, which "
        "takes long.",
    )
    circle: bool = option(
        False,
        "Draw the sounds as a circle. Above: each sound, and the sums of neighbours. "
        "Below: what is generated from their embeddings and the means of neighbours.",
    )
    sounds_path: str = option(
        "",
        "The folder for generated sounds; by default beside the figure. Finished "
        "sounds in it are used again.",
    )

    @property
    def encodes(self) -> bool:
        """Whether embeddings are computed to be drawn."""
        return self.embeddings and not self.embeddings_path

    @property
    def generates(self) -> bool:
        """Whether sounds are generated."""
        return self.circle or (self.reconstructions and not self.reconstructions_path)

    @property
    def needs_network(self) -> bool:
        """Whether there is something to encode or to generate."""
        return self.encodes or self.generates

    def check(
        self,
        network: Network,
        generation: Generation,
        inputs: Inputs,
        output: PictureOutput,
    ) -> None:
        """Raises InputError for options that don't go together."""
        if self.circle:
            self._check_circle(inputs, output)
        if self.needs_network and not network.checkpoint_path:
            raise InputError(
                "Give --checkpoint_path, the network that computes embeddings and "
                "generates sounds, or read them from --embeddings_path and "
                "--reconstructions_path."
            )
        if not self.needs_network:
            reason = "does nothing without --embeddings or --reconstructions to compute"
            names = ("checkpoint_path", "use_ema", "hop_length", "dilation_cycle")
            refuse_changed(network, f"{reason}, or --circle; leave it out.", *names)
        if not self.generates:
            reason = "does nothing if no sounds are generated; leave it out."
            refuse_changed(self, reason, "sounds_path")
            names = ("batch_size", "seed", "temperature", "precision")
            refuse_changed(generation, reason, *names)

    def _check_circle(self, inputs: Inputs, output: PictureOutput) -> None:
        reason = "does not go with --circle; leave it out."
        names = ("reconstructions", "reconstructions_path", "embeddings_path")
        refuse_changed(self, reason, *names)
        refuse_changed(output, reason, "grid", "names")
        refuse_changed(inputs, reason, "limit")
        if not output.is_figure:
            raise InputError("--circle makes one figure; give --save_path=circle.png.")
