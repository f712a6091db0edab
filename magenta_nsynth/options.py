"""Options: fields of dataclasses that say what they do, from which flags are made.

    @dataclasses.dataclass(frozen=True)
    class Sampling:
        '''How samples are drawn.'''

        temperature: float = option(1.0, "Divides the logits.", low=0)

An option is spelled where it is defined and where it is used. `cli.run` turns the
fields of such classes into flags, and the values of the flags into instances.
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
]

_FIELD = "option"
_KINDS = {bool: "boolean", int: "integer", float: "float", str: "string"}


@dataclasses.dataclass(frozen=True)
class Option:
    """What a flag needs to know beyond its field.

    Attributes:
      help: one or two sentences for --help.
      flag: the flag's name, where it is not the field's.
      choices: the values that a text may have; () for any.
      low: the least number.
      high: the largest number.
      repeated: a tuple is given by repeating the flag, not by commas.
      parse: turns the flag's text or list into the field's value.
      model: "wavenet" or "baseline", where only that one has a use for it.
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
        """Absl's name for the kind of flag that a field with this annotation makes."""
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
    """A field of a dataclass that is also a flag; `details` are those of `Option`."""
    return dataclasses.field(
        default=default, metadata={_FIELD: Option(help, **details)}
    )


def options_of(cls: type) -> Iterator[tuple[dataclasses.Field[Any], Option, str]]:
    """Each field that is an option, the option, and its flag's name."""
    for field in dataclasses.fields(cls):
        described = field.metadata.get(_FIELD)
        if described is not None:
            yield field, described, described.flag or field.name


def check_limits(options: Any) -> None:
    """Raises InputError for a number beyond the limits of its option."""
    for field, described, flag in options_of(type(options)):
        value, low, high = getattr(options, field.name), described.low, described.high
        if value is None or (low is None and high is None):
            continue
        # Written so that NaN is refused.
        if not (low is None or value >= low) or not (high is None or value <= high):
            wanted = f"{low} or more" if high is None else f"{low} to {high}"
            raise InputError(f"--{flag} must be {wanted}, not {value}.")


def refuse_changed(options: Any, reason: str, *names: str) -> None:
    """Raises InputError, "--<flag> <reason>", if an option is not at its default.

    Args:
      options: an instance of a dataclass with options.
      reason: why it has to be left out.
      *names: of the fields to look at; none means all.
    """
    for field, _, flag in options_of(type(options)):
        if names and field.name not in names:
            continue
        if getattr(options, field.name) != field.default:
            raise InputError(f"--{flag} {reason}")


def refuse_other_model(options: Any, model: str) -> None:
    """Raises InputError if an option is given that is for the other model.

    Args:
      options: an instance of a dataclass with options.
      model: "wavenet" or "baseline".
    """
    for field, described, _ in options_of(type(options)):
        if described.model not in ("", model):
            owner = "the WaveNet" if described.model == "wavenet" else "the baseline"
            refuse_changed(
                options,
                f"is for {owner}, and this is another model's checkpoint; leave it "
                "out.",
                field.name,
            )
