"""The commands, called with flat options: each goes to the class that has it."""

import dataclasses

from magenta_nsynth.commands import export_embeddings as exporting
from magenta_nsynth.commands import generate as generating
from magenta_nsynth.commands import make_tfrecord as making
from magenta_nsynth.commands import save_embeddings as saving
from magenta_nsynth.commands.options import Making, Network, Output, ShardOptions
from magenta_nsynth.generation.options import Generation
from magenta_nsynth.notes.inputs import Inputs
from magenta_nsynth.notes.naming import NameRules

DEFAULT = NameRules()


def split(options, *classes):
    """An instance of each class, of the options that are its fields."""
    left = dict(options)
    instances = []
    for cls in classes:
        names = [field.name for field in dataclasses.fields(cls) if field.name in left]
        instances.append(cls(**{name: left.pop(name) for name in names}))
    assert not left, left
    return instances


def save_embeddings(model, paths, out, rules=DEFAULT, batch_size=16, **options):
    options.update(source_path=paths, save_path=out)
    inputs, output = split(options, Inputs, Output)
    return saving.save_embeddings(model, inputs, rules, output, batch_size)


def generate(model, paths, out, rules=DEFAULT, **options):
    if "num_iters" in options:  # as the models call it
        options["griffin_lim_iterations"] = options.pop("num_iters")
    options.update(source_path=paths, save_path=out)
    inputs, output, generation = split(options, Inputs, Output, Generation)
    return generating.generate(model, inputs, rules, output, generation)


def make_tfrecord(paths, out, read_as=None, rules=DEFAULT, **options):
    options["csv"] = str(options.get("csv", ""))
    [made] = split(options, Making)
    inputs = Inputs(source_path=paths, read_as=read_as)
    return making.make_tfrecord(inputs, rules, out, made)


def export(checkpoint, paths, out, rules=DEFAULT, **options):
    options.update(source_path=paths)
    inputs, files = split(options, Inputs, ShardOptions)
    return exporting.Export(Network(**checkpoint), inputs, out, rules, files)
