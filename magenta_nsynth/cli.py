"""Shared by the binaries: flags from options, --help, and one-line errors."""

import dataclasses
import errno
import logging as python_logging
import os
import re
import signal
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn, get_type_hints

from absl import flags, logging

import magenta_nsynth
from magenta_nsynth.errors import InputError, NSynthError
from magenta_nsynth.formatting import one_line
from magenta_nsynth.importing import set_log_level, tensorflow_import
from magenta_nsynth.options import (
    Option,
    check_limits,
    options_of,
    with_defaults,
)

__all__ = ["OF_THE_ORIGINAL", "Flags", "load_tensorflow", "run", "show"]

FLAGS = flags.FLAGS
_LOG_LEVELS = {
    "DEBUG": logging.DEBUG,
    "INFO": logging.INFO,
    "WARN": logging.WARNING,
    "WARNING": logging.WARNING,
    "ERROR": logging.ERROR,
    "FATAL": logging.FATAL,
}
OF_THE_ORIGINAL = (
    "does nothing here; the original used it to set up several machines. Set "
    "TF_CONFIG on each machine instead, as TensorFlow's guide describes."
)
_CLOSED_PIPE = 141  # the exit status of a program ended by SIGPIPE
_HELP_WIDTH = 88
# Bytes needed below the limit of `ulimit -v` for the stacks of TensorFlow's threads.
_LEAST_ADDRESS_SPACE = 700_000_000


class _OneLine(python_logging.Formatter):
    """Formats on one line: file names may contain line breaks and escape sequences."""

    def formatMessage(self, record: python_logging.LogRecord) -> str:
        return one_line(super().formatMessage(record))


class Flags(NamedTuple):
    """Options that a binary accepts as flags.

    Attributes:
      cls: a dataclass whose fields are options.
      only: the names of the fields that become flags; "" for all.
      defaults: by field name, this binary's defaults that differ from the class's.
    """

    cls: type
    only: str = ""
    defaults: Mapping[str, Any] = {}

    def own_class(self) -> type:
        """Returns the options' class with this binary's defaults."""
        return with_defaults(self.cls, **self.defaults) if self.defaults else self.cls

    def fields(self) -> list[tuple[dataclasses.Field[Any], Option, str]]:
        """Lists each field that becomes a flag, its option, and the flag's name."""
        only = self.only.split()
        fields = list(options_of(self.own_class()))
        return [one for one in fields if not only or one[0].name in only]

    def define(self) -> list[str]:
        """Defines the flags; returns their names."""
        hints = get_type_hints(self.cls)
        names = []
        for field, described, name in self.fields():
            kind = described.kind(hints[field.name])
            default: Any = field.default
            arguments: list[Any] = [name, default]
            limits: dict[str, Any] = {}
            if kind == "enum":
                arguments.append(list(described.choices))
            elif kind in ("list", "multi_string"):
                arguments[1] = None if default is None else list(default)
            elif kind in ("integer", "float"):
                limits = {"lower_bound": described.low, "upper_bound": described.high}
            getattr(flags, f"DEFINE_{kind}")(*arguments, described.help, **limits)
            names.append(name)
        return names

    def read(self) -> Any:
        """Makes an instance of the options from the values of the flags."""
        values = {}
        for field, described, name in self.fields():
            value = FLAGS[name].value
            if isinstance(value, list):  # the defaults of options are tuples
                value = tuple(value)
            values[field.name] = described.parse(value) if described.parse else value
        options = self.own_class()(**values)
        check_limits(options)  # the flags' own limits let NaN through
        return options


def run(
    main: Callable[..., int | None],
    doc: str,
    options: Sequence[type | Flags] = (),
    aliases: Mapping[str, str] | None = None,
    takes_words: bool = False,
) -> None:
    """Parses the flags, calls `main` with the options, and exits.

    --help prints `doc` and the flags, --version the version; both exit with 0, without
    importing TensorFlow.
    An `NSynthError`, an `OSError` or a lack of memory prints one line and exits with 1.
    Ctrl-C exits with 130, and a closed pipe on standard output with 141. Any other
    exception is a bug and shows its traceback.

    Args:
      main: called with an instance of each of the options, in order. Its result is the
        exit status; None means 0.
      doc: the first part of --help.
      options: dataclasses with options; `Flags` selects some of their fields.
      aliases: other names of flags, and the flag that each stands for.
      takes_words: whether arguments without a flag are allowed; they are then the
        first argument of `main`, as a list.
    """
    program = os.path.basename(sys.argv[0])
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # names may not be UTF-8
    groups = [one if isinstance(one, Flags) else Flags(one) for one in options]
    headings = {_heading(group.cls): group.define() for group in groups}
    headings["General."] = _define_general(aliases or {})
    try:
        words = FLAGS(_with_help_flag(sys.argv))[1:]
    except flags.Error as error:
        _fail(program, f"{' '.join(str(error).splitlines())} (--help lists the flags.)")

    only_text = FLAGS.help or FLAGS.version
    version = f"{program} {magenta_nsynth.__version__}"

    def call() -> int | None:
        values = [group.read() for group in groups]
        if takes_words:
            return main(words, *values)
        _refuse_words(words)
        return main(*values)

    try:
        if only_text:
            print(_help(doc, program, headings) if FLAGS.help else version)
        status = 0 if only_text else _run(call, program)
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        # Raised by standard output. At exit Python would try to write the rest again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if not isinstance(error, BrokenPipeError):
            _fail(program, f"standard output: {error.strerror}.")
        status = 0 if only_text else _CLOSED_PIPE  # closed by `| head -1`, say
    sys.exit(status)


def _heading(cls: type) -> str:
    return (cls.__doc__ or "").splitlines()[0]


def _define_general(aliases: Mapping[str, str]) -> list[str]:
    """Defines the flags of every binary, and the aliases; returns their names."""
    flags.DEFINE_boolean("help", False, "Show this text.", short_name="h")
    flags.DEFINE_boolean("version", False, "Show the version.")
    flags.DEFINE_enum(
        "log", "INFO", list(_LOG_LEVELS), "The least severe messages to show.",
        case_sensitive=False,
    )  # fmt: skip
    for alias, name in aliases.items():
        flags.DEFINE_alias(alias, name)
    return ["log", "version", *aliases]


def _refuse_words(words: Sequence[str]) -> None:
    """Raises InputError for arguments without a flag, as from an unquoted glob."""
    if words:
        raise InputError(
            f"Unexpected argument {words[0]!r}: every path needs its flag. Quote a "
            "glob, --source_path='sounds/*.wav', and repeat the flag for several paths."
        )


def _help(doc: str, program: str, headings: Mapping[str, Sequence[str]]) -> str:
    blocks = [doc.strip().format(program=program), "\nFlags:"]
    for heading, names in headings.items():
        blocks.append(f"\n  {heading}")
        blocks += [_flag_help(name) for name in names]
    return "\n".join(blocks)


def _run(call: Callable[[], int | None], program: str) -> int:
    _set_up_logging(FLAGS.log)
    # SIGTERM and SIGHUP stop the program as Ctrl-C does.
    for number in _orderly_stops():
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores SIGHUP
            signal.signal(number, signal.default_int_handler)
    try:
        _check_working_folder()
        return call() or 0
    except NSynthError as error:
        _fail(program, str(error))
    except BrokenPipeError:
        raise
    except OSError as error:
        _fail(program, _describe(error))
    except KeyboardInterrupt as error:
        message = str(error)
    except Exception as error:
        if not _is_out_of_memory(error):
            raise
        advice = " or give a smaller --batch_size" if "batch_size" in FLAGS else ""
        _fail(program, f"Not enough memory; end other programs{advice}.")
    # Only now is the traceback gone, and with it what it held open.
    _stop(program, message)


def _check_working_folder() -> None:
    try:
        os.getcwd()
    except OSError as error:
        raise InputError(
            f"The working folder no longer exists ({error.strerror}); cd to another."
        ) from None


def _is_out_of_memory(error: Exception) -> bool:
    # Recognised by its name, because TensorFlow may not have been imported.
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "ResourceExhaustedError"
        or str(error) == "can't start new thread"
    )


def show(text: str) -> None:
    """Prints lines on standard output, with control characters escaped."""
    print("\n".join(map(one_line, text.split("\n"))))


def load_tensorflow() -> None:
    """Imports TensorFlow without its start messages, or a traceback on Ctrl-C.

    Only --log=DEBUG shows the messages, and a TF_CPP_MIN_LOG_LEVEL of the user's.
    """
    if "tensorflow" not in sys.modules:
        logging.info("Loading TensorFlow ...")
    with tensorflow_import() as restore_errors:

        def stop(*_: object) -> None:
            restore_errors()
            _stop(os.path.basename(sys.argv[0]), "")

        # A module whose import is interrupted may report a broken installation, and
        # there is nothing to clean up yet.
        replaced = [
            number
            for number in (signal.SIGINT, *_orderly_stops())
            if signal.getsignal(number) == signal.default_int_handler
        ]
        for number in replaced:
            signal.signal(number, stop)
        try:
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
    """Raises MemoryError if the limit on memory would make TensorFlow abort."""
    try:
        import resource  # not on Windows

        with open("/proc/self/statm", encoding="ascii") as file:  # Linux only
            used = int(file.read().split()[0]) * resource.getpagesize()
    except (ImportError, OSError):
        return
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit - used < _LEAST_ADDRESS_SPACE:
        raise MemoryError


def _orderly_stops() -> list[int]:
    """Lists the signals that ask a program to end, other than that of Ctrl-C."""
    names = ("SIGTERM", "SIGHUP")  # Windows has no SIGHUP
    return [getattr(signal, name) for name in names if hasattr(signal, name)]


def _with_help_flag(argv: Sequence[str]) -> list[str]:
    """Replaces a single argument `help` with --help."""
    if list(argv[1:]) == ["help"]:
        return [argv[0], "--help"]
    return list(argv)


def _flag_help(name: str) -> str:
    flag = FLAGS[name]
    default = "" if flag.default in (None, "", []) else f" [{flag.default}]"
    spelling = f"--[no]{name}" if flag.boolean else f"--{name}"
    text = textwrap.fill(
        " ".join(flag.help.split()) + default,
        _HELP_WIDTH,
        initial_indent=" " * 6,
        subsequent_indent=" " * 6,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return f"  {spelling}\n{text}"


def _set_up_logging(level: str) -> None:
    logging.use_absl_handler()
    logging.set_verbosity(_LOG_LEVELS[level.upper()])
    # --log applies to this program's messages, not to every library's.
    root = python_logging.getLogger()
    logging.get_absl_logger().setLevel(root.level)
    root.setLevel(max(root.level, python_logging.WARNING))
    logging.get_absl_handler().setFormatter(_OneLine("%(levelname)s: %(message)s"))
    set_log_level(verbose=level.upper() == "DEBUG")


def _describe(error: OSError) -> str:
    what = error.strerror or str(error)
    if error.errno == errno.ENOSPC:
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
    # Not sys.exit: TensorFlow's threads can keep a process alive for seconds.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(130)
