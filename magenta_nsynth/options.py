"""Options: described fields of dataclasses, from which flags are made.

    @dataclasses.dataclass(frozen=True)
    class Sampling:
        '''How samples are drawn.'''

        temperature: float = option(1.0, "Divides the logits.", low=0)

An option's name appears where it is defined and where it is used, nowhere else.
`cli.run` turns the fields into flags, and the flags' values into instances.
"""

import dataclasses
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from magenta_nsynth.errors import InputError

__all__ = [
    "Option",
    "check_limits",
    "option",
    "options_of",
    "refuse_changed",
    "refuse_other_model",
    "with_defaults",
]

_FIELD = "option"
_KINDS = {bool: "boolean", int: "integer", float: "float", str: "string"}


@dataclasses.dataclass(frozen=True)
class Option:
    """Describes a field to the command line.

    Attributes:
      help: one or two sentences for --help.
      flag: the flag's name, if it differs from the field's.
      choices: the allowed values of a string; () allows any.
      low: the smallest allowed number.
      high: the largest allowed number.
      repeated: whether a tuple is given by repeating the flag, not by commas.
      parse: converts the flag's string or list to the field's value.
      model: "wavenet" or "baseline" if only that model uses the option.
    """

    help: str
    flag: str = ""
    choices: Sequence[str] = ()
    low: float | None = None
    high: float | None = None
    repeated: bool = False
    parse: Callable[[Any], Any] | None = None
    model: str = ""

    def kind(self, annotation: Any) -> str:
        """Returns absl's name for the kind of flag that suits a field's annotation."""
        if self.choices:
            return "enum"
        alternatives = [annotation]
        if isinstance(annotation, types.UnionType):
            alternatives = list(typing.get_args(annotation))
        [first, *_] = (one for one in alternatives if one is not type(None))
        if first in _KINDS:
            return _KINDS[first]
        return "multi_string" if self.repeated else "list"


def option(default: Any, help: str, **details: Any) -> Any:
    """Makes a dataclass field that is also a flag; `details` are fields of `Option`."""
    return dataclasses.field(
        default=default, metadata={_FIELD: Option(help, **details)}
    )


def options_of(cls: type) -> Iterator[tuple[dataclasses.Field[Any], Option, str]]:
    """Yields each field that is an option, its description, and its flag's name."""
    for field in dataclasses.fields(cls):
        described = field.metadata.get(_FIELD)
        if described is not None:
            yield field, described, described.flag or field.name


def with_defaults(cls: type, **defaults: Any) -> type:
    """Returns a subclass of options with other defaults.

    Args:
      cls: a dataclass with options.
      **defaults: the new default of each field that differs.
    """
    fields = [
        (
            field.name,
            field.type,
            dataclasses.field(default=defaults[field.name], metadata=field.metadata),
        )
        for field in dataclasses.fields(cls)
        if field.name in defaults
    ]
    return dataclasses.make_dataclass(
        cls.__name__,
        fields,
        bases=(cls,),
        namespace={"__doc__": cls.__doc__},
        frozen=True,
    )


def check_limits(options: Any) -> None:
    """Raises InputError for a value outside its option's limits or choices."""
    for field, described, flag in options_of(type(options)):
        value, low, high = getattr(options, field.name), described.low, described.high
        if value is None:
            continue
        if described.choices and value not in described.choices:
            wanted = " or ".join(described.choices)
            raise InputError(f"--{flag} must be {wanted}, not {value}.")
        if low is None and high is None:
            continue
        # Phrased so that NaN is refused.
        if not (low is None or value >= low) or not (high is None or value <= high):
            wanted = f"{low} or more" if high is None else f"{low} to {high}"
            raise InputError(f"--{flag} must be {wanted}, not {value}.")


def refuse_changed(options: Any, reason: str, *names: str) -> None:
    """Raises InputError, "--<flag> <reason>", if an option differs from its default.

    Args:
      options: an instance of a dataclass with options.
      reason: why the option must be left out.
      *names: the fields to check; none means all.
    """
    for field, _, flag in options_of(type(options)):
        if names and field.name not in names:
            continue
        if getattr(options, field.name) != field.default:
            raise InputError(f"--{flag} {reason}")


def refuse_other_model(options: Any, model: str) -> None:
    """Raises InputError if an option of the other model is given.

    Args:
      options: an instance of a dataclass with options.
      model: "wavenet" or "baseline".
    """
    for field, described, _ in options_of(type(options)):
        if described.model not in ("", model):
            owner = "the WaveNet" if described.model == "wavenet" else "the baseline"
            refuse_changed(
                options,
                f"is for {owner}, and this is the other model; leave it out.",
                field.name,
            )
