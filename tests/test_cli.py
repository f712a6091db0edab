"""Flags, --help, errors in one line and orderly stops; TensorFlow is not needed."""

import os
import re
import resource
import signal
import subprocess
import sys
import textwrap

import pytest
from binaries import ROOT, command, environment, error_line, finish, run

import magenta_nsynth

BINARIES = sorted(path.name for path in (ROOT / "bin").iterdir())


@pytest.mark.parametrize("name", BINARIES)
def test_help_comes_at_once_and_without_tensorflow(name):
    words = command(name, "--help")
    result = finish([words[0], "-X", "importtime", *words[1:]])
    assert result.returncode == 0
    assert "Flags:" in result.stdout and name in result.stdout
    imported = {line.split("|")[-1].strip() for line in result.stderr.splitlines()}
    assert "absl.flags" in imported
    assert not imported & {"tensorflow", "keras", "numpy", "scipy"}
    # Processor time: the machine may be busy.
    before = os.times()
    help_only = finish(command(name, "-h"), env=environment())
    assert help_only.stderr == ""
    after = os.times()
    used = after.children_user + after.children_system
    assert used - before.children_user - before.children_system < 0.5


# The original's flags and their defaults, and ours that every binary shares.
FLAGS = {
    "nsynth_save_embeddings": {
        "source_path": "",
        "save_path": "",
        "checkpoint_path": "",
        "expdir": "",
        "sample_length": "64000",
        "batch_size": "16",
        "log": "INFO",
        "[no]use_ema": "False",
        "[no]skip_existing": "False",
        "[no]recursive": "False",
    },
    "nsynth_generate": {
        "source_path": "",
        "[no]npy_only": "False",
        "[no]encodings": "False",
        "save_path": "",
        "checkpoint_path": "model.ckpt-200000",
        "sample_length": "64000",
        "batch_size": "1",
        "log": "INFO",
        "gpu_number": "",
        "seed": "",
        "temperature": "1.0",
        "bit_depth": "float",
        "[no]normalize": "False",
        "samples_per_save": "10000",
        "[no]use_ema": "False",
        "[no]skip_existing": "False",
        "[no]recursive": "False",
    },
    "nsynth_interpolate": {
        "source_path": "",
        "save_path": "",
        "checkpoint_path": "",
        "sample_length": "64000",
        "weights": "",
        "steps": "",
        "grid": "",
        "crossfade": "",
        "method": "linear",
        "stretch": "1.0",
        "[no]sum": "False",
        "[no]generate": "False",
        "[no]match_loudness": "False",
        "batch_size": "1",
        "seed": "",
        "temperature": "1.0",
        "bit_depth": "float",
        "[no]skip_existing": "False",
        "log": "INFO",
    },
    "nsynth_rainbowgram": {
        "source_path": "",
        "save_path": "",
        "checkpoint_path": "",
        "sample_length": "0",
        "transform": "cqt",
        "peak_db": "70.0",
        "transform_hop_length": "256",
        "num_bins": "240",
        "bins_per_octave": "40",
        "filter_scale": "0.8",
        "colormap": "rainbow",
        "axis": "none",
        "[no]demodulate": "False",
        "[no]embeddings": "False",
        "[no]reconstructions": "False",
        "[no]circle": "False",
        "batch_size": "16",
        "log": "INFO",
    },
    "nsynth_export_embeddings": {
        "source_path": "",
        "save_path": "",
        "checkpoint_path": "",
        "sample_length": "64000",
        "batch_size": "16",
        "format": "npy",
        "notes_per_shard": "500",
        "[no]skip_corrupt": "False",
        "[no]bfloat16": "False",
    },
    "nsynth_checkpoint": {
        "checkpoint_path": "",
        "save_path": "",
        "[no]use_ema": "False",
        "log": "INFO",
    },
}


@pytest.mark.parametrize("name", FLAGS)
def test_flags_and_defaults(name):
    text = run(name, "--help").stdout.partition("Flags:")[2]
    shown = dict(re.findall(r"^  --(\S+)\n((?: {6}.*\n)+)", text, re.MULTILINE))
    for flag, default in FLAGS[name].items():
        ending = shown[flag].split()[-1]
        assert ending == f"[{default}]" if default else "[" not in ending, flag


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--no_such_flag=1"], "no_such_flag"),
        (["--sample_lenght=1"], "sample_length"),
        (["--sample_length=-1"], "sample_length"),
        (["--sample_length=many"], "many"),
        (["--batch_size=1.5"], "1.5"),
        (["--log=LOUD"], "DEBUG|INFO|WARN"),
        (["--temperature=-1"], "temperature"),
        (["--bit_depth=24"], "<float|16>"),
        (["--seed=-1"], "seed"),
        (["--samples_per_save=0"], "samples_per_save"),
        (["--source_path=a.wav", "b.wav"], "'b.wav'"),
    ],
)
def test_wrong_flags_are_one_line(arguments, words):
    line = error_line(run("nsynth_generate", *arguments))
    assert line.startswith("nsynth_generate: ") and words in line


@pytest.fixture
def program(tmp_path):
    """Runs a program made of `cli.run` and a main of its own."""

    def run_program(body, *arguments, modules=(), options="[Output]", **limits):
        path = tmp_path / "program"
        text = "import logging, os, signal\nfrom absl import logging as absl_logging\n"
        text += "from magenta_nsynth import cli\n"
        text += "from magenta_nsynth.errors import InputError\n"
        text += "from magenta_nsynth.commands.options import Output\n"
        text += "def main(*options):\n" + textwrap.indent(textwrap.dedent(body), "  ")
        text += f"\ncli.run(main, 'What {{program}} does.', {options})\n"
        path.write_text(text, encoding="utf-8")
        for name, content in modules:
            (tmp_path / f"{name}.py").write_text(content, encoding="utf-8")
        words = [sys.executable, str(path), *arguments]
        env = environment(tmp_path) | limits.pop("env", {})
        return finish(words, env=env, **limits)

    return run_program


@pytest.mark.parametrize("name", BINARIES)
def test_the_version_is_the_packages(name):
    result = run(name, "--version")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == f"{name} {magenta_nsynth.__version__}\n"


# A file that is there, and what is missing beside it.
HERE = "--source_path=README.md"


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("nsynth_generate", [HERE, "--save_path=x"], "model.ckpt-200000: no such"),
        ("nsynth_generate", ["--source_path=no.wav", "--save_path=x"], "no.wav"),
        ("nsynth_generate", ["--checkpoint_path=small"], "--source_path"),
        ("nsynth_save_embeddings", [HERE], "Give --save_path"),
        ("nsynth_save_embeddings", [HERE, "--save_path=x"], "No checkpoint given"),
        ("nsynth_export_embeddings", ["--source_path=no*.wav"], "matches nothing"),
        ("nsynth_rainbowgram", ["--source_path=no.wav", "--save_path=x"], "no.wav"),
        ("nsynth_evaluate", [HERE, "--checkpoint_path=no"], "no: no such checkpoint"),
        ("nsynth_make_tfrecord", [HERE], "Give --save_path"),
        ("nsynth_train", ["--train_path=no", "--logdir=x"], "another --train_path"),
        ("nsynth_checkpoint", ["inspect", "no"], "no: no such checkpoint"),
    ],
)
def test_paths_are_checked_before_tensorflow_is_imported(name, arguments, words):
    text = "import runpy, sys; sys.modules['tensorflow'] = None; sys.argv.pop(0); "
    text += "runpy.run_path(sys.argv[0], run_name='__main__')"
    run_binary = [sys.executable, "-c", text, *command(name, *arguments)[1:]]
    assert words in error_line(finish(run_binary, env=environment(), cwd=ROOT))


def test_what_main_returns_is_the_status(program):
    assert program("return None").returncode == 0
    assert program("return 1").returncode == 1


@pytest.mark.parametrize(
    ("error", "line"),
    [
        # A file's name keeps its spaces, and can't forge a line or colour the terminal.
        (r"InputError('a  b\nc\x1b[31m.wav: no')", r"program: a  b\nc\x1b[31m.wav: no"),
        ("MemoryError('9 GB')", "program: Not enough memory; end other programs."),
        ("type('ResourceExhaustedError', (Exception,), {})", "program: Not enough mem"),
        ('RuntimeError("can\'t start new thread")', "program: Not enough memory"),
        ("PermissionError(13, 'Permission denied', 'x')", "program: x: Permission d"),
        ("OSError('odd')", "program: odd."),
    ],
)
def test_expected_errors_are_one_line(program, error, line):
    assert error_line(program(f"raise {error}")).startswith(line)


@pytest.mark.parametrize(
    ("body", "line"),
    [
        (
            r"absl_logging.error('%s', 'a\nERROR: b\x1b[31m')",
            r"ERROR: a\nERROR: b\x1b[31m",
        ),
        (r"cli.show('a\x1b[31m\udcff\n')", ""),
    ],
)
def test_names_reach_a_terminal_as_escapes(program, body, line):
    result = program(body)
    assert result.stderr == (f"{line}\n" if line else "")
    assert result.stdout == ("" if line else "a\\x1b[31m\\udcff\n\n")


def test_a_closed_pipe_and_a_full_disk_behind_standard_output(program):
    body = "print('x' * 9999)"
    read, write = os.pipe()
    os.close(read)
    with open(write, "w") as closed:
        statuses = [
            program(body, *arguments, stdout=closed, stderr=subprocess.PIPE)
            for arguments in ([], ["--help"])
        ]
    assert [(s.returncode, s.stderr) for s in statuses] == [(141, ""), (0, "")]
    with open("/dev/full", "w") as full:
        result = program("print('x')", stdout=full, stderr=subprocess.PIPE)
    assert result.returncode == 1
    [line] = result.stderr.splitlines()
    assert line.startswith("program: ") and "No space left on device" in line


def test_a_working_folder_that_is_gone_is_said(program, tmp_path):
    (tmp_path / "gone").mkdir()

    def enter():
        os.chdir(tmp_path / "gone")
        os.rmdir(tmp_path / "gone")

    line = error_line(program("return 0", preexec_fn=enter))
    assert line.startswith("program: The working folder no longer exists")


def test_too_little_address_space_is_said_before_tensorflow_aborts(program):
    limit = (resource.RLIMIT_AS, (600_000_000, 600_000_000))
    options = {"preexec_fn": lambda: resource.setrlimit(*limit), "modules": NOISY}
    line = error_line(program("cli.load_tensorflow()", "--log=WARN", **options))
    assert line == "program: Not enough memory; end other programs."


def test_a_full_disk_says_what_to_do(program):
    full = "raise OSError(28, 'No space left on device', 'a.npy')"
    line = error_line(program(full))
    assert "a.npy" in line and "--skip_existing" in line
    line = error_line(program(full, options="[]"))
    assert "run again" in line and "--skip_existing" not in line


def test_a_bug_keeps_its_traceback(program):
    result = program("raise RuntimeError('a bug')")
    assert result.returncode == 1 and "Traceback" in result.stderr


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_orderly_stops(program, name):
    body = f"""
    try:
      os.kill(os.getpid(), signal.{name})
      signal.pause()
    except KeyboardInterrupt:
      raise KeyboardInterrupt("All is kept.")
    """
    result = program(body)
    assert result.returncode == 130
    assert result.stderr == "\nprogram: stopped. All is kept.\n"


def test_what_a_stopped_program_had_begun_is_cleaned_up(program):
    """A block may be entered no further than to its `yield` when Ctrl-C comes."""
    body = """
    def begun():
      try:
        yield
      finally:
        print("cleaned up")
    held = begun()
    next(held)
    os.kill(os.getpid(), signal.SIGINT)
    signal.pause()
    """
    result = program(body)
    assert (result.returncode, result.stdout) == (130, "cleaned up\n")


def test_nohup_is_heard(program):
    body = "os.kill(os.getpid(), signal.SIGHUP)\nreturn 3"
    ignore = {"preexec_fn": lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)}
    assert program(body, **ignore).returncode == 3


@pytest.mark.parametrize(
    ("level", "shown"),
    [
        ("DEBUG", "DEBUG: d\nINFO: i\nWARNING: w\nERROR: e\n"),
        ("info", "INFO: i\nWARNING: w\nERROR: e\n"),
        ("WARN", "WARNING: w\nERROR: e\n"),
        ("WARNING", "WARNING: w\nERROR: e\n"),
        ("ERROR", "ERROR: e\n"),
        ("FATAL", ""),
    ],
)
def test_log_levels(program, level, shown):
    body = """
    logging.getLogger("other.library").debug("not ours")
    logging.getLogger("other.library").info("not ours")
    absl_logging.debug("d")
    absl_logging.info("i")
    absl_logging.warning("w")
    absl_logging.error("e")
    """
    result = program(body, f"--log={level}")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", shown)


LOADING = "INFO: Loading TensorFlow ...\n"
# In TensorFlow's place: it greets on the file, not on Python's sys.stderr.
NOISY = [("keras", ""), ("tensorflow", "import os; os.write(2, b'hello from C++\\n')")]


@pytest.mark.parametrize(("level", "greeting"), [("INFO", ""), ("DEBUG", "hello from")])
def test_tensorflows_greetings_are_not_shown(program, level, greeting):
    body = "cli.load_tensorflow()\nos.write(2, b'after')"
    result = program(body, f"--log={level}", modules=NOISY)
    assert result.returncode == 0
    assert result.stderr.startswith(f"{LOADING}{greeting}")
    assert result.stderr.endswith("after")
    assert greeting or result.stderr == f"{LOADING}after"


def test_a_level_that_the_user_set_stays(program):
    body = "print(os.environ['TF_CPP_MIN_LOG_LEVEL'])\ncli.load_tensorflow()"
    for level, greets in (("1", True), ("3", False)):
        env = {"TF_CPP_MIN_LOG_LEVEL": level}
        result = program(body, modules=NOISY, env=env)
        assert result.stdout == f"{level}\n"
        assert ("hello" in result.stderr) == greets
    assert program(body, modules=NOISY).stdout == "3\n"
    assert program(body, "--log=DEBUG", modules=NOISY).stdout == "0\n"


def test_a_failing_import_is_shown(program):
    modules = [("keras", ""), ("tensorflow", "raise ImportError('no such library')")]
    result = program("cli.load_tensorflow()", modules=modules)
    assert result.returncode == 1 and "no such library" in result.stderr


def test_ctrl_c_while_tensorflow_is_imported(program):
    content = """
import os, signal
try:
    os.kill(os.getpid(), signal.SIGINT)
    signal.pause()
except BaseException as error:
    raise ImportError("you should not import this from its source directory")
"""
    modules = [("keras", ""), ("tensorflow", content)]
    result = program("cli.load_tensorflow()", modules=modules)
    assert result.returncode == 130
    assert result.stderr == f"{LOADING}\nprogram: stopped.\n"


def test_ctrl_c_after_the_import_is_an_interrupt_again(program):
    body = """
    cli.load_tensorflow()
    try:
      os.kill(os.getpid(), signal.SIGINT)
      signal.pause()
    except KeyboardInterrupt:
      return 5
    """
    assert program(body, modules=NOISY).returncode == 5


STUB = """
import os, runpy, sys
from magenta_nsynth import cli
run = cli.run
def shown(main, *arguments, **options):
    def main(*values):
        for value in values:
            if hasattr(value, "choose"):
                value.choose()
            print(value)
        print("gpu", os.environ.get("CUDA_VISIBLE_DEVICES"))
    run(main, *arguments, **options)
cli.run = shown
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def given(name, *arguments, gpu=None):
    """The options that a binary's main gets, as text; nothing is loaded."""
    words = command(name, *arguments)
    words[1:2] = ["-c", STUB, words[1]]
    env = environment() | ({"CUDA_VISIBLE_DEVICES": gpu} if gpu else {})
    result = finish(words, env=env)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_flags_reach_save_embeddings():
    paths = ["--source_path=a b", "--source_path=c*"]
    network = ["--checkpoint_path=x", "--use_ema", "--hop_length=64"]
    others = ["--save_path=o", "--sample_length=0", "--batch_size=3", "--recursive"]
    others += ["--skip_existing"]
    text = given("nsynth_save_embeddings", *paths, *network, *others)
    assert "source_path=('a b', 'c*')" in text
    assert "checkpoint_path='x', model='', use_ema=True, hop_length=64" in text
    assert "save_path='o', skip_existing=True" in text
    assert "recursive=True" in text and "sample_length=0" in text
    assert "Encoding(batch_size=3, config=None" in text
    assert "NameRules(pitch_from_name='auto', middle_c='C4')" in text


def test_the_originals_flags_reach_save_embeddings():
    arguments = ["--tfrecord_path=a", "--savedir=o", "--expdir=x", "--model=ae"]
    arguments += ["--config=nfft_1024", "--master=", "--skip_corrupt", "--log=INFO"]
    text = given("nsynth_save_embeddings", *arguments)
    assert "source_path=('a',)" in text and "skip_corrupt=True" in text
    assert "checkpoint_path='x', model='baseline'" in text
    assert "save_path='o', skip_existing=False" in text
    assert "Encoding(batch_size=16, config='nfft_1024', master='')" in text


def test_flags_reach_generate():
    arguments = ["--save_path=o", "--sample_length=7", "--batch_size=2", "--seed=5"]
    arguments += ["--encodings", "--temperature=0.5", "--bit_depth=16", "--normalize"]
    arguments += ["--samples_per_save=9", "--source_path=a", "--dilation_cycle=4"]
    arguments += ["--precision=int8"]
    text = given("nsynth_generate", *arguments)
    assert "checkpoint_path='model.ckpt-200000'" in text
    assert "dilation_cycle=4" in text
    assert "npy_only=True" in text
    assert (
        "Generation(batch_size=2, seed=5, bit_depth='16', normalize=True, "
        "temperature=0.5, precision='int8', samples_per_save=9, pitch=None, "
        "pitch_shift=0, griffin_lim_iterations=1000, phase='griffin_lim', "
        "halfway=False)" in text
    )


def test_flags_of_the_baseline_reach_generate():
    arguments = ["--model=baseline", "--source_path=a", "--save_path=o", "--pitch=0"]
    arguments += ["--pitch_shift=-2", "--phase=source", "--halfway", "--skip_corrupt"]
    arguments += ["--pitch_from_name=midi", "--middle_c=C3"]
    text = given("nsynth_generate", *arguments)
    assert (
        "pitch=0, pitch_shift=-2, griffin_lim_iterations=1000, phase='source', "
        "halfway=True" in text
    )
    assert "skip_corrupt=True" in text
    assert "NameRules(pitch_from_name='midi', middle_c='C3')" in text


def test_flags_reach_make_tfrecord():
    arguments = ["--source_path=a", "--float", "--nopad", "--note_seconds=0"]
    text = given("nsynth_make_tfrecord", *arguments, "--read_as=archive")
    assert "as_float=True" in text and "pad=False" in text
    assert "note_seconds=0.0" in text and "read_as='archive'" in text


def test_words_without_a_flag_are_refused():
    result = run("nsynth_generate", "--source_path=a.wav", "b.wav")
    assert "Unexpected argument 'b.wav'" in error_line(result)


def test_the_gpu_is_chosen_only_where_a_number_is_given():
    assert "gpu None" in given("nsynth_generate")
    assert "gpu 7" in given("nsynth_generate", gpu="7")
    assert "gpu 1" in given("nsynth_generate", "--gpu_number=1", gpu="7")


def test_flags_reach_interpolate():
    arguments = ["--source_path=a", "--source_path=a", "--save_path=o", "--sum"]
    arguments += ["--weights=1,-2.5", "--method=spherical", "--stretch=2", "--generate"]
    arguments += ["--match_loudness", "--bit_depth=16", "--sample_length=0", "--seed=5"]
    arguments += ["--skip_existing", "--temperature=0.5", "--checkpoint_path=x"]
    text = given("nsynth_interpolate", *arguments, "--gpu_number=1")
    assert "source_path=('a', 'a')" in text and "sample_length=0" in text
    assert "checkpoint_path='x'" in text and "gpu 1" in text
    assert "save_path='o', skip_existing=True" in text
    assert (
        "Mixing(weights=(1.0, -2.5), steps=None, grid='', crossfade=None, "
        "method='spherical', stretch=2.0, sum=True, generate=True, "
        "match_loudness=True)" in text
    )
    assert (
        "Generation(batch_size=1, seed=5, bit_depth='16', normalize=False, "
        "temperature=0.5" in text
    )


def test_flags_of_the_baseline_reach_interpolate():
    arguments = ["--checkpoint_path=x", "--model=ae", "--generate", "--pitch=60"]
    arguments += ["--crossfade=0.25,1", "--griffin_lim_iterations=3", "--pitch_shift=1"]
    arguments += ["--pitch_from_name=midi", "--middle_c=C3"]
    text = given("nsynth_interpolate", *arguments)
    assert "model='baseline'" in text and "crossfade=(0.25, 1.0)" in text
    assert "pitch=60, pitch_shift=1, griffin_lim_iterations=3" in text
    assert "NameRules(pitch_from_name='midi', middle_c='C3')" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--weights=1,a"], "--weights=1,a: give numbers"),
        (["--weights="], "--weights=: give numbers"),
        (["--grid=3"], "--grid=3: give rows x columns"),
        (["--grid=0x3"], "--grid=0x3: give rows x columns"),
        (["--crossfade=1"], "--crossfade=1: give 2 numbers"),
        (["--method=cubic"], "<linear|spherical>"),
        (["--steps=0"], "--steps"),
        (["--seed=1"], "--seed does nothing without --generate"),
        (["--match_loudness"], "--match_loudness does nothing without --generate"),
        (["--bit_depth=16"], "--bit_depth does nothing without --generate or --sum"),
        (["--use_ema"], "--use_ema does nothing without --checkpoint_path"),
        (["--generate"], "--generate needs a checkpoint"),
    ],
)
def test_flags_of_interpolate_that_make_no_sense(arguments, words):
    line = error_line(run("nsynth_interpolate", *arguments))
    assert line.startswith("nsynth_interpolate: ") and words in line
