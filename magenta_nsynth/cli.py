"""What the binaries share: their common flags, --help, and errors in one line."""

import contextlib
import logging as python_logging
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NoReturn

from absl import flags, logging

from magenta_nsynth.errors import InputError, NSynthError
from magenta_nsynth.formatting import one_line
from magenta_nsynth.importing import without_matplotlib
from magenta_nsynth.notes.naming import MIDDLE_C, PITCH_FROM_NAME, NameRules

__all__ = [
    "FLAGS",
    "GENERATION_FLAGS",
    "NAME_RULES_FLAGS",
    "check_old",
    "checkpoint_options",
    "choose_gpu",
    "define",
    "define_old",
    "define_temperature",
    "generation_options",
    "grid_option",
    "load_tensorflow",
    "model_option",
    "name_rules",
    "note_filter_options",
    "refuse",
    "refuse_given",
    "run",
    "show",
    "source_paths",
]

FLAGS = flags.FLAGS
_LOG_LEVELS = {
    "DEBUG": logging.DEBUG,
    "INFO": logging.INFO,
    "WARN": logging.WARNING,
    "WARNING": logging.WARNING,
    "ERROR": logging.ERROR,
    "FATAL": logging.FATAL,
}
_NAMED_FILTERS = {
    "families": "families (bass, flute ...)",
    "sources": "sources (acoustic, electronic, synthetic)",
    "qualities": "qualities (bright, percussive ...; all of them)",
}
# --model and what it means.
_MODELS = {"wavenet": "wavenet", "baseline": "baseline", "ae": "baseline"}
# Flags of generation, and the argument of each model's job that they give.
_GENERATION = {"batch_size": "batch_size", "seed": "seed", "normalize": "normalize"}
_WAVENET_GENERATION = {
    "temperature": "temperature",
    "samples_per_save": "samples_per_save",
}
_BASELINE_GENERATION = {
    "pitch": "pitch",
    "pitch_shift": "pitch_shift",
    "griffin_lim_iterations": "num_iters",
}
GENERATION_FLAGS = (*_GENERATION, *_WAVENET_GENERATION, *_BASELINE_GENERATION)
NAME_RULES_FLAGS = ("pitch_from_name", "middle_c")
_defined: list[str] = []
_CLOSED_PIPE = 141  # the exit status: as of a program that SIGPIPE ended
# Bytes under `ulimit -v` that the stacks of TensorFlow's threads need at least.
_LEAST_ADDRESS_SPACE = 700_000_000


class _OneLine(python_logging.Formatter):
    """Messages of one line: a file's name may hold line breaks and escape sequences."""

    def formatMessage(self, record: python_logging.LogRecord) -> str:
        return one_line(super().formatMessage(record))


def define(kind: str, name: str, *arguments: object, **options: object) -> None:
    """Calls absl's flags.DEFINE_<kind>, and notes the flag for --help."""
    getattr(flags, f"DEFINE_{kind}")(name, *arguments, **options)
    _defined.append(name)


def _define_shared(names: Sequence[str]) -> None:
    """The flags that mean the same in every binary."""
    shared = {
        "model": lambda: define(
            "enum", "model", "", ["", *_MODELS],
            "wavenet or baseline (the original's name for that is ae), which the "
            "checkpoint then has to be; by default the checkpoint says it.",
        ),
        "source_path": lambda: define(
            "multi_string", "source_path", [],
            "What to read: a file, a folder or a glob",  # absl adds: repeat for several
        ),
        "recursive": lambda: define(
            "boolean", "recursive", False,
            "Read the folders below --source_path too, and mirror them in --save_path.",
        ),
        "save_path": lambda: define(
            "string", "save_path", "", "The folder to write to; created if missing."
        ),
        "checkpoint_path": lambda: define(
            "string", "checkpoint_path", "",
            "The TF1 checkpoint: its prefix (model.ckpt-200000), one of its files, or "
            "its folder for the latest one in there.",
        ),
        "expdir": lambda: define(
            "string", "expdir", "",
            "The original's name for a --checkpoint_path that is a folder.",
        ),
        "use_ema": lambda: define(
            "boolean", "use_ema", False,
            "Use the averaged weights of the checkpoint, not the raw ones.",
        ),
        "hop_length": lambda: define(
            "integer", "hop_length", None,
            "Samples per frame of the checkpoint's model, where it is neither 512 nor "
            "said by config.json beside it.", lower_bound=1,
        ),
        "dilation_cycle": lambda: define(
            "integer", "dilation_cycle", None,
            "Layers after which the dilations start again at 1, where it is neither "
            "10 nor said by config.json.", lower_bound=1,
        ),
        "sample_length": lambda: define(
            "integer", "sample_length", 64000,
            "Use at most so many samples (at 16 kHz) of each file; 0 uses all.",
            lower_bound=0,
        ),
        "skip_existing": lambda: define(
            "boolean", "skip_existing", False,
            "Leave out files whose output is there already, to resume a broken run.",
        ),
        "skip_corrupt": lambda: define(
            "boolean", "skip_corrupt", False,
            "Leave out damaged notes, and say how many, in place of stopping; to find "
            "them all notes are read once at the start.",
        ),
        "note_filters": _define_note_filters,
        "generation": _define_generation,
        "name_rules": _define_name_rules,
        "seed": lambda: define(
            "integer", "seed", None,
            "Makes the random draws repeatable; the same for every file.",
            lower_bound=0, upper_bound=2**32 - 1,
        ),
    }  # fmt: skip
    for name in names:
        shared[name]()
    define(
        "enum", "log", "INFO", list(_LOG_LEVELS),
        "The least severe messages to show.", case_sensitive=False,
    )  # fmt: skip


def _define_note_filters() -> None:
    """Which notes of a TFRecord to take; `note_filter_options` reads them."""
    for name, of in _NAMED_FILTERS.items():
        define(
            "list", name, [], f"Take notes of these {of} alone, with commas between."
        )
    define("list", "velocities", [], "Take notes of these velocities alone.")
    define("integer", "min_pitch", None, "Take no note below this MIDI pitch.")
    define("integer", "max_pitch", None, "Take no note above this MIDI pitch.")


def _define_name_rules() -> None:
    """How pitches are read from names; `name_rules` reads the flags."""
    define(
        "enum", "pitch_from_name", "auto", list(PITCH_FROM_NAME),
        "Where a sound's pitch is looked for in its file's name. auto: note names, but "
        "not models such as Hammond B3, and the numbers of piano_60, piano_64 ...; "
        "note: every note name; midi: every number at the end (one_60 alone); none: "
        "nowhere. A unity note in the file (smpl chunk) is taken where the name says "
        "nothing.",
    )  # fmt: skip
    define(
        "enum", "middle_c", "C4", list(MIDDLE_C), "What names call MIDI note 60."
    )  # fmt: skip


def name_rules() -> dict[str, NameRules]:
    """The argument `rules` that those flags give; {} where none of them was given."""
    rules = NameRules(FLAGS.pitch_from_name, FLAGS.middle_c)
    return {} if rules == NameRules() else {"rules": rules}


def _define_generation() -> None:
    """How sounds are generated; `generation_options` and `choose_gpu` read them."""
    define("integer", "batch_size", 1, "Files that are generated side by side.")
    define_temperature()
    define("enum", "bit_depth", "float", ["float", "16"], "The samples of the WAV.")
    define("boolean", "normalize", False, "Scale each finished sound to a peak of 1.")
    define(
        "integer", "samples_per_save", 10000,
        "WaveNet: write each file again after so many samples, to listen to its start.",
        lower_bound=1,
    )  # fmt: skip
    define(
        "integer", "pitch", None,
        "Baseline: the MIDI pitch of all sounds, in place of their own. 60 is C4.",
    )  # fmt: skip
    define("integer", "pitch_shift", 0, "Baseline: so many semitones above the pitch.")
    define(
        "integer", "griffin_lim_iterations", 1000,
        "Baseline: after 100 there is little left to gain.",
    )  # fmt: skip
    define(
        "integer", "gpu_number", None,
        "The one GPU to use, by its number; by default TensorFlow's choice.",
    )  # fmt: skip


def define_temperature() -> None:
    """How boldly a WaveNet draws its samples."""
    define(
        "float", "temperature", 1.0,
        "WaveNet: divides the logits. Below 1 is safer, 0 takes the likeliest sample.",
        lower_bound=0,
    )  # fmt: skip


def generation_options(is_baseline: bool) -> dict[str, object]:
    """What the flags of generation give the model's job, beside --bit_depth.

    Args:
      is_baseline: whether the checkpoint is the baseline's.

    Raises:
      InputError: a flag of the other model.
    """
    own, others = _WAVENET_GENERATION, _BASELINE_GENERATION
    if is_baseline:
        own, others = others, own
    refuse(list(others), "the WaveNet" if is_baseline else "the baseline")
    return {
        argument: FLAGS[name].value for name, argument in (_GENERATION | own).items()
    }


def choose_gpu() -> None:
    """Heeds --gpu_number; to be called before TensorFlow is loaded."""
    if FLAGS.gpu_number is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = str(FLAGS.gpu_number)


def note_filter_options() -> dict[str, object]:
    """The arguments of `NoteFilter` that the flags give; {} takes all notes."""
    options: dict[str, object] = {name: FLAGS[name].value for name in _NAMED_FILTERS}
    try:
        options["velocities"] = [int(text) for text in FLAGS.velocities]
    except ValueError:
        raise InputError(
            f"--velocities={','.join(FLAGS.velocities)}: give whole numbers from 0 to "
            "127, with commas between."
        ) from None
    options.update(min_pitch=FLAGS.min_pitch, max_pitch=FLAGS.max_pitch)
    return {name: value for name, value in options.items() if value not in ([], None)}


def grid_option() -> tuple[int, int] | None:
    """The rows and columns of --grid, None if it isn't given."""
    text = FLAGS.grid
    if not text:
        return None
    rows, _, columns = text.lower().partition("x")
    try:
        values = int(rows), int(columns)
        if min(values) < 1:
            raise ValueError
    except ValueError:
        raise InputError(f"--grid={text}: give rows x columns, such as 3x5.") from None
    return values


def model_option() -> str:
    """What --model says: "wavenet", "baseline", or "" for the checkpoint's."""
    return _MODELS.get(FLAGS.model, "")


def define_old(defaults: Mapping[str, str | int]) -> None:
    """Flags of the original's way to several machines, for scripts that name them."""
    for name, default in defaults.items():
        kind = "string" if isinstance(default, str) else "integer"
        define(kind, name, default, "The original's; TF_CONFIG has taken its place.")


def check_old(defaults: Mapping[str, str | int]) -> None:
    """Raises InputError if one of those flags asks for something."""
    for name, default in defaults.items():
        if FLAGS[name].value != default:
            raise InputError(
                f"--{name} was the original's way to several machines and does nothing "
                "here: set TF_CONFIG on each machine, as TensorFlow's guide says."
            )


def refuse(names: Sequence[str], owner: str) -> None:
    """Raises InputError if a flag was given that the checkpoint's model has no use for.

    Args:
      names: of flags.
      owner: the model that they are for.
    """
    refuse_given(
        names, f"is for {owner}, and this is another model's checkpoint; leave it out."
    )


def refuse_given(names: Sequence[str], reason: str) -> None:
    """Raises InputError, "--<name> <reason>", if one of these flags was given."""
    for name in names:
        if FLAGS[name].value != FLAGS[name].default:
            raise InputError(f"--{name} {reason}")


def run(
    main: Callable[[list[str]], int | None],
    doc: str,
    shared: str = "",
    define_own: Callable[[], None] | None = None,
) -> None:
    """Parses the flags, runs `main(positional arguments)` and exits.

    --help prints `doc` and the flags and exits with 0; TensorFlow is not imported
    for it. An `NSynthError`, an `OSError` or a want of memory becomes one line and
    status 1; Ctrl-C status 130; a closed pipe behind standard output 141. Any other
    exception is a bug and shows its traceback.

    Args:
      main: the work; what it returns is the exit status, None is 0.
      doc: what --help says first.
      shared: names of the shared flags that this binary takes, between spaces.
      define_own: defines the others, by calling `define`.
    """
    program = os.path.basename(sys.argv[0])
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # names that aren't UTF-8
    flags.DEFINE_boolean("help", False, "Show this text.", short_name="h")
    _define_shared(shared.split())
    if define_own is not None:
        define_own()
    try:
        arguments = FLAGS(_without_old_spellings(sys.argv))[1:]
    except flags.Error as error:
        words = " ".join(str(error).splitlines())
        _fail(program, f"{words} (--help lists the flags.)")
    try:
        status = _help(doc, program) if FLAGS.help else _run(main, arguments, program)
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        # Of standard output. What is left for it would be written once more at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if not isinstance(error, BrokenPipeError):
            _fail(program, f"standard output: {error.strerror}.")
        status = 0 if FLAGS.help else _CLOSED_PIPE  # as `| head -1` closes it
    sys.exit(status)


def _help(doc: str, program: str) -> int:
    print(doc.strip().format(program=program))
    print("\nFlags:\n" + "\n".join(_flag_help(name) for name in sorted(_defined)))
    return 0


def _run(
    main: Callable[[list[str]], int | None], arguments: list[str], program: str
) -> int:
    _set_up_logging(FLAGS.log)
    # A terminal's hang-up or a job's end is as orderly a stop as Ctrl-C.
    for number in _orderly_stops():
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup means that
            signal.signal(number, signal.default_int_handler)
    try:
        _check_working_folder()
        return main(arguments) or 0
    except NSynthError as error:
        _fail(program, str(error))
    except BrokenPipeError:
        raise
    except OSError as error:
        _fail(program, _describe(error))
    except KeyboardInterrupt as error:
        _stop(program, str(error))
    except Exception as error:
        if not _is_want_of_memory(error):
            raise
        advice = " or give a smaller --batch_size" if "batch_size" in FLAGS else ""
        _fail(program, f"Not enough memory; end other programs{advice}.")


def _check_working_folder() -> None:
    try:
        os.getcwd()
    except OSError as error:
        raise InputError(
            f"The working folder is gone ({error.strerror}); cd to one that exists."
        ) from None


def _is_want_of_memory(error: Exception) -> bool:
    # By its name: TensorFlow may not have been imported.
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "ResourceExhaustedError"
        or str(error) == "can't start new thread"
    )


def show(text: str) -> None:
    """Prints lines on standard output, with control characters as escapes."""
    print("\n".join(map(one_line, text.split("\n"))))


def load_tensorflow() -> None:
    """Imports TensorFlow, without its greetings and without a traceback at Ctrl-C.

    The C++ side's first messages go to standard error before TF_CPP_MIN_LOG_LEVEL is
    heard (TensorFlow 2.18 and later); only --log=DEBUG shows them.
    """
    with _silence(FLAGS.log.upper() != "DEBUG") as restore:

        def stop(*_: object) -> None:
            restore()
            _stop(os.path.basename(sys.argv[0]), "")

        # A module that a KeyboardInterrupt meets while it is imported may call it a
        # broken installation; and there is nothing yet to tidy up.
        replaced = [
            number
            for number in (signal.SIGINT, *_orderly_stops())
            if signal.getsignal(number) == signal.default_int_handler
        ]
        for number in replaced:
            signal.signal(number, stop)
        try:
            with without_matplotlib():
                import keras  # noqa: F401
                import tensorflow  # noqa: F401
        except (ImportError, MemoryError, OSError) as error:
            if re.search("failed to map segment|Cannot allocate memory", str(error)):
                raise MemoryError from error
            raise
        finally:
            for number in replaced:
                signal.signal(number, signal.default_int_handler)

    _check_address_space()


def _check_address_space() -> None:
    """Raises MemoryError where a limit would have TensorFlow abort the program."""
    try:
        import resource  # not on Windows

        with open("/proc/self/statm", encoding="ascii") as file:  # Linux alone
            used = int(file.read().split()[0]) * resource.getpagesize()
    except (ImportError, OSError):
        return
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit - used < _LEAST_ADDRESS_SPACE:
        raise MemoryError


def _orderly_stops() -> list[int]:
    """The signals beside Ctrl-C's that ask for an end: a job's, a hang-up's."""
    names = ("SIGTERM", "SIGHUP")  # Windows has no SIGHUP
    return [getattr(signal, name) for name in names if hasattr(signal, name)]


@contextlib.contextmanager
def _silence(silent: bool) -> Iterator[Callable[[], None]]:
    """Drops what anything writes to standard error; yields what ends that early."""
    if not silent or sys.stderr is None:
        yield lambda: None
        return
    kept = os.dup(2)
    with open(os.devnull, "w", encoding="utf-8") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        yield lambda: os.dup2(kept, 2)
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def source_paths(arguments: Sequence[str]) -> list[str]:
    """The paths of --source_path; refuses leftover words, as of a spread glob."""
    if arguments:
        raise InputError(
            f"What is {arguments[0]!r}? Every path needs its flag: quote a glob, "
            "--source_path='sounds/*.wav', and repeat --source_path for several."
        )
    return FLAGS.source_path


def checkpoint_options() -> dict[str, object]:
    """The arguments of `WaveNet` that the shared checkpoint flags give."""
    path = FLAGS.checkpoint_path
    if "expdir" in FLAGS:
        path = path or FLAGS.expdir
    return {
        "checkpoint_path": path,
        "use_ema": FLAGS.use_ema,
        "hop_length": FLAGS.hop_length,
        "num_stages": FLAGS.dilation_cycle,
    }


def _without_old_spellings(argv: Sequence[str]) -> list[str]:
    """Absl reads -help as --help, and so do we; `help` alone means it too."""
    if list(argv[1:]) == ["help"]:
        return [argv[0], "--help"]
    return list(argv)


def _flag_help(name: str) -> str:
    flag = FLAGS[name]
    default = "" if flag.default in (None, "", []) else f" [{flag.default}]"
    spelling = f"--[no]{name}" if flag.boolean else f"--{name}"
    return f"  {spelling}\n      {' '.join(flag.help.split())}{default}"


def _set_up_logging(level: str) -> None:
    logging.use_absl_handler()
    logging.set_verbosity(_LOG_LEVELS[level.upper()])
    # --log is for this program's messages, not for every library's.
    root = python_logging.getLogger()
    logging.get_absl_logger().setLevel(root.level)
    root.setLevel(max(root.level, python_logging.WARNING))
    logging.get_absl_handler().setFormatter(_OneLine("%(levelname)s: %(message)s"))
    # TensorFlow's C++ side reports its devices at every start; errors that matter
    # come up as Python exceptions.
    os.environ.setdefault(
        "TF_CPP_MIN_LOG_LEVEL", "0" if level.upper() == "DEBUG" else "3"
    )


def _describe(error: OSError) -> str:
    what = error.strerror or str(error)
    if error.errno == 28:
        again = " with --skip_existing" if "skip_existing" in FLAGS else ""
        what += f"; free some space and run again{again}"
    name = error.filename2 or error.filename
    return f"{name}: {what}." if name else f"{what}."


def _fail(program: str, message: str) -> NoReturn:
    print(one_line(f"{program}: {message}"), file=sys.stderr)
    sys.exit(1)


def _stop(program: str, message: str) -> NoReturn:
    message = f"{program}: stopped. {message}".rstrip()
    print(f"\n{one_line(message)}", file=sys.stderr)
    # Not sys.exit: TensorFlow's threads may keep a process alive for seconds.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(130)
