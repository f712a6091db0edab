"""Finding inputs, refusing collisions, and outputs that are never half-written."""

import contextlib
import dis
import errno
import json
import math
import os
import pathlib
import stat
import sys

import numpy as np
import pytest

from magenta_nsynth import disk, files
from magenta_nsynth.audio import load_audio, save_audio
from magenta_nsynth.disk import only_writer
from magenta_nsynth.embeddings.embedding import load_array
from magenta_nsynth.embeddings.npy_csv import read_note_csv
from magenta_nsynth.errors import AudioError, InputError, NSynthError
from magenta_nsynth.files import (
    Source,
    atomic_path,
    expand,
    find_sources,
    load_json,
    read_json,
    refuse_collisions,
    write_json,
)
from magenta_nsynth.notes.clips import read_list
from magenta_nsynth.notes.inputs import Inputs
from magenta_nsynth.notes.labels_csv import read_labels
from magenta_nsynth.notes.opening import open_clips


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A folder of files, which is the working folder too."""
    for name in (
        "b.wav",
        "a.WAV",
        "vocal_a.wav",
        "two  words.wav",
        "é.x.wav",
        "-dash.wav",
        "[1].wav",
        "note.txt",
        ".hidden.wav",
        "sub/c.wav",
        "sub/deeper/d.Wav",
        "other/c.wav",
        "empty/note.txt",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "folder.wav").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


TOP = ["-dash.wav", "[1].wav", "a.WAV", "b.wav", "two  words.wav", "vocal_a.wav"]
TOP += ["é.x.wav"]


def test_a_folder_gives_its_sounds_in_any_case_sorted(tree):
    sources = find_sources([tree], [".wav"])
    assert [os.path.relpath(s.path, tree) for s in sources] == TOP
    assert {s.subfolder for s in sources} == {""}
    stems = [s.stem for s in sources]
    assert stems == ["-dash", "[1]", "a", "b", "two  words", "vocal_a", "é.x"]


def test_recursive_mirrors_the_tree(tree):
    sources = find_sources(["."], [".wav"], recursive=True)
    below = [(s.path, s.subfolder) for s in sources if s.subfolder]
    assert sorted(below) == [
        ("./other/c.wav", "other"),
        ("./sub/c.wav", "sub"),
        ("./sub/deeper/d.Wav", os.path.join("sub", "deeper")),
    ]
    assert len(sources) == len(TOP) + 3


def test_a_folder_can_be_left_out(tree):
    sources = find_sources(["."], [".wav"], recursive=True, left_out=[tree / "sub"])
    assert [s.path for s in sources if s.subfolder] == ["./other/c.wav"]
    # It is read where it is asked for by name.
    named = find_sources(["sub"], [".wav"], recursive=True, left_out=["sub"])
    assert [s.subfolder for s in named] == ["", "deeper"]


@pytest.mark.parametrize(
    ("paths", "found"),
    [
        (["b.wav"], ["b.wav"]),
        (["-dash.wav", "b.wav"], ["-dash.wav", "b.wav"]),
        (["?.wav"], ["b.wav"]),
        (["*/c.wav"], ["other/c.wav", "sub/c.wav"]),
        (["**/c.wav"], ["other/c.wav", "sub/c.wav"]),
        (["[1].wav"], ["[1].wav"]),  # it exists, so it is no glob
        (["sub", "b.wav", "./b.wav", "sub/c.wav"], ["sub/c.wav", "b.wav"]),
        (["empty", "sub"], ["sub/c.wav"]),
        ([".hidden.wav"], [".hidden.wav"]),
        (["", "b.wav"], ["b.wav"]),
        (["s*"], ["sub/c.wav"]),
        (["*.*"], ["-dash.wav", *TOP[1:]]),  # other kinds and folders don't disturb
    ],
)
def test_files_globs_and_several_paths(tree, paths, found):
    assert [s.path for s in find_sources(paths, [".wav"])] == found


@pytest.mark.parametrize(
    ("paths", "words"),
    [
        ([], "--source_path"),
        ([""], "--source_path"),
        (["nowhere"], "nowhere: does not exist"),
        (["nowhere/*.wav"], "nowhere/*.wav: matches nothing"),
        (["note.txt"], "note.txt: not one of .wav"),
        (["empty"], "empty: no .wav file found"),
        (["b.wav", "nowhere"], "nowhere: does not exist"),
    ],
)
def test_nothing_to_read_is_an_error(tree, paths, words):
    with pytest.raises(InputError) as error:
        find_sources(paths, [".wav"])
    assert words in str(error.value)


def test_hidden_things_are_passed_over(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (
        "a.wav", "._a.wav", ".b.wav", "__MACOSX/a.wav", "__MACOSX/kit/._a.wav",
        "kit/.ipynb_checkpoints/c-checkpoint.wav", "kit/c.wav", "kit/@eaDir/c.wav",
        ".git/x.wav", "$RECYCLE.BIN/$R1.wav",
    ):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    def found(*paths):
        sources = find_sources(paths, [".wav"], recursive=True)
        return sorted(os.path.relpath(source.path) for source in sources)

    for paths in ([tmp_path], ["."], ["**/*.wav"], ["*"], ["**"], ["kit/*", "*.wav"]):
        assert found(*paths) == ["a.wav", "kit/c.wav"], paths
    # Who names them means them.
    assert found("__MACOSX/*.wav", ".b.wav") == [".b.wav", "__MACOSX/a.wav"]
    hidden = "kit/.ipynb_checkpoints"
    assert found(hidden) == [f"{hidden}/c-checkpoint.wav"]
    with pytest.raises(InputError, match=r"no \.wav file"):
        found("__MAC*")


def test_other_kinds_are_counted_once(tmp_path, caplog):
    others = [
        "1.aiff",
        "2.AIFF",
        "sub/3.aiff",
        "x.txt",
        "LICENSE",
        ".DS_Store",
        "z.npy",
    ]
    for name in ("a.wav", "sub/b.wav", *others):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    caplog.set_level("INFO")
    paths = [tmp_path, tmp_path / "sub", tmp_path / "*.wav"]
    for instead in ([], [".npy"]):
        assert len(find_sources(paths, [".wav"], True, instead=instead)) == 2
        assert caplog.messages == [
            "Files with other extensions are left out: 3 .aiff, 1 without extension, "
            "1 .npy, 1 .txt."
        ]
        caplog.clear()
    assert len(find_sources([tmp_path], [".wav"], True, quiet=True)) == 2
    assert len(find_sources([tmp_path / "a.wav"], [".wav"])) == 1
    assert not caplog.messages
    with pytest.raises(InputError, match=r"no .mp3 file found \(but 3 .aiff, "):
        find_sources([tmp_path], [".mp3"], True)
    for i in range(9):
        (tmp_path / f"x.{i}").touch()
    find_sources([tmp_path], [".wav"])
    assert caplog.messages[0].endswith(
        "2 .aiff, 1 without extension, 1 .0, 1 .1, 1 .2, 8 others."
    )


def test_what_is_taken_instead(tmp_path):
    for name in ("both/a.wav", "both/a.npy", "npy/b.npy"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    paths = [tmp_path / "both", tmp_path / "npy", tmp_path / "both" / "a.npy"]
    sources = find_sources(paths, [".wav"], instead=[".npy"])
    names = [os.path.relpath(source.path, tmp_path) for source in sources]
    assert names == ["both/a.wav", "npy/b.npy", "both/a.npy"]
    with pytest.raises(InputError, match=r"not one of \.npy, \.wav"):
        (tmp_path / "x.txt").touch()
        find_sources([tmp_path / "x.txt"], [".wav"], instead=[".npy"])


def test_the_hint_at_recursive_is_given_only_where_it_helps(tree):
    with pytest.raises(InputError, match="--recursive"):
        find_sources(["empty"], [".wav"])
    with pytest.raises(InputError) as error:
        find_sources(["empty"], [".wav"], recursive=True)
    assert "--recursive" not in str(error.value)


def test_expand(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PLACE", "there")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expand("a/$PLACE") == "a/there"
    assert expand(pathlib.Path("~/x")) == f"{tmp_path}/x"
    (tmp_path / "$PLACE.wav").touch()
    assert expand("$PLACE.wav") == "$PLACE.wav"
    [source] = find_sources(["$PLACE.wav"], [".wav"])
    assert source.path == "$PLACE.wav"


def test_two_sources_of_one_output_are_refused(tmp_path):
    first, second = tmp_path / "a.wav", tmp_path / "a.flac"
    with pytest.raises(InputError) as error:
        refuse_collisions(
            [Source(str(first), ""), Source(str(second), "")],
            [f"{tmp_path}/out/a.npy", f"{tmp_path}/out/../out/a.npy"],
        )
    for part in (str(first), str(second), "a.npy"):
        assert part in str(error.value)


def test_an_output_over_an_input_is_refused(tmp_path):
    path = tmp_path / "gen_a.wav"
    path.touch()
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    with pytest.raises(InputError, match="would be overwritten"):
        refuse_collisions(
            [Source(str(tmp_path / "a.wav"), ""), Source(str(path), "")],
            [str(link / "gen_a.wav"), str(link / "gen_gen_a.wav")],
        )


@pytest.mark.parametrize(
    ("platform", "refused"), [("linux", False), ("darwin", True), ("win32", True)]
)
def test_case_matters_where_the_system_says_so(
    tmp_path, monkeypatch, platform, refused
):
    monkeypatch.setattr("sys.platform", platform)
    sources = [Source("A.wav", ""), Source("a.wav", "")]
    outputs = [str(tmp_path / "A.npy"), str(tmp_path / "a.npy")]
    if not refused:
        return refuse_collisions(sources, outputs)
    with pytest.raises(InputError, match="both be written"):
        refuse_collisions(sources, outputs)


def test_atomic_path_writes_beside_and_renames(tmp_path):
    path = tmp_path / "new" / "sub" / "a.npy"
    with atomic_path(path) as temporary:
        assert os.path.dirname(temporary) == str(path.parent)
        assert temporary.endswith(".npy")
        assert os.path.basename(temporary).startswith(".")  # find_sources passes it
        pathlib.Path(temporary).write_text("new", encoding="utf-8")
        assert not path.exists()
    assert path.read_text(encoding="utf-8") == "new"
    assert os.listdir(path.parent) == ["a.npy"]


def test_atomic_path_gives_a_new_files_usual_rights(tmp_path):
    usual = tmp_path / "usual"
    usual.touch()
    with atomic_path(tmp_path / "a"):
        pass
    mode = stat.S_IMODE((tmp_path / "a").stat().st_mode)
    assert mode == stat.S_IMODE(usual.stat().st_mode)


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_after_an_error_the_old_file_is_whole_and_nothing_is_left(tmp_path, error):
    path = tmp_path / "a.npy"
    path.write_text("old", encoding="utf-8")
    with pytest.raises(type(error)), atomic_path(path) as temporary:
        pathlib.Path(temporary).write_text("half", encoding="utf-8")
        raise error
    assert path.read_text(encoding="utf-8") == "old"
    assert os.listdir(tmp_path) == ["a.npy"]


def test_ctrl_c_at_any_moment_leaves_nothing(tmp_path):
    """It is raised before every instruction in turn, but never before a return.

    There Python handles no signals.
    """
    path, places = tmp_path / "a.txt", (files.__file__, disk.__file__)

    def write_interrupted(after):
        """Whether the file was written before that many instructions were over."""
        left = after

        def trace(frame, event, _):
            nonlocal left
            if frame.f_code.co_filename not in (*places, contextlib.__file__):
                return None
            frame.f_trace_opcodes = True
            following = dis.opname[frame.f_code.co_code[frame.f_lasti]]
            left -= event == "opcode" and not following.startswith("RETURN")
            if left == 0:
                sys.settrace(None)
                raise KeyboardInterrupt
            return trace

        before = sys.gettrace()
        try:
            sys.settrace(trace)
            with atomic_path(path) as temporary:
                pathlib.Path(temporary).write_text("whole")
        except KeyboardInterrupt:
            return False
        finally:
            sys.settrace(before)
        return True

    after = 1
    while not write_interrupted(after):
        assert [p.name for p in tmp_path.iterdir()] in ([], ["a.txt"]), after
        path.unlink(missing_ok=True)
        after += 1
    assert after > 200
    assert path.read_text() == "whole"


def test_what_a_kill_left_is_overwritten_and_gone(tmp_path):
    left = tmp_path / ".writing-a.npy"
    left.write_text("half", encoding="utf-8")
    with atomic_path(tmp_path / "a.npy") as temporary:
        assert temporary == str(left) and left.read_bytes() == b""
    assert os.listdir(tmp_path) == ["a.npy"]


def test_a_file_that_another_program_is_writing_is_left_to_it(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_PATIENCE", 0)
    with atomic_path(tmp_path / "a.npy") as temporary:
        pathlib.Path(temporary).write_text("first", encoding="utf-8")
        with (
            pytest.raises(InputError, match=r"a\.npy: another program is writing this"),
            atomic_path(tmp_path / "a.npy"),
        ):
            pass
    assert (tmp_path / "a.npy").read_text(encoding="utf-8") == "first"
    assert os.listdir(tmp_path) == ["a.npy"]


@pytest.mark.parametrize("name", ["a.npy", "a" * 250 + ".npy"])
def test_files_are_written_without_locks_too(tmp_path, monkeypatch, name):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    usual = tmp_path / "usual"
    usual.touch()
    with atomic_path(tmp_path / name):
        assert len(os.listdir(tmp_path)) == 2
    assert sorted(os.listdir(tmp_path)) == [name, "usual"]
    assert (tmp_path / name).stat().st_mode == usual.stat().st_mode


def test_numbers_that_are_none_are_not_written_as_json(tmp_path):
    with pytest.raises(InputError, match=r"a\.json: not written"):
        write_json(tmp_path / "a.json", {"scale": math.inf})
    assert os.listdir(tmp_path) == []


def test_one_program_at_a_time_writes_to_a_folder(tmp_path):
    with only_writer(str(tmp_path)):
        with (
            pytest.raises(InputError, match=r"another program .* another --html"),
            only_writer(str(tmp_path), "--html"),
        ):
            pass
        assert len(os.listdir(tmp_path)) == 1
    assert os.listdir(tmp_path) == []
    with only_writer(str(tmp_path)):
        pass


def test_an_error_of_the_system_names_the_file_asked_for(tmp_path):
    (tmp_path / "a.npy").mkdir()
    with pytest.raises(OSError) as error, atomic_path(tmp_path / "a.npy"):
        pass
    assert error.value.filename == str(tmp_path / "a.npy")
    assert os.listdir(tmp_path) == ["a.npy"]


def test_a_dollar_sign_in_the_name_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("PLACE", "there")
    with atomic_path(tmp_path / "$PLACE.npy"):
        pass
    assert os.listdir(tmp_path) == ["$PLACE.npy"]


def test_paths_that_nobody_typed_are_not_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("REL", "../..")
    monkeypatch.chdir(tmp_path)
    for path in ("$REL/a", "~/b", "c/$REL/$REL"):
        with atomic_path(path) as temporary:
            pathlib.Path(temporary).touch()
        assert (tmp_path / path).exists()


@pytest.mark.parametrize(
    ("content", "form", "misfit"),
    [
        ("{}", dict, None),
        ("[]", dict, "its content"),
        ("null", dict, "its content"),
        ('"a"', str, None),
        ('{"a": 1}', {"a": int}, None),
        ('{"a": true}', {"a": int}, "'a'"),
        ('{"a": 1.0}', {"a": int}, "'a'"),
        ('{"b": 1}', {"a": int}, "'a'"),
        ('{"b": 1}', {"a": (int, None)}, None),
        ('{"a": null}', {"a": (int, None)}, None),
        ('{"a": "x"}', {"a": (int, None)}, "'a'"),
        ('{"a": ["x", "y"]}', {"a": [str]}, None),
        ('{"a": ["x", 1]}', {"a": [str]}, "'a' [1]"),
        ('{"a": {"x": {"n": []}}}', {"a": {str: {"n": int}}}, "'a' 'x' 'n'"),
        ('{"a": {"x": {"n": 1}}}', {"a": {str: {"n": int}}}, None),
        ('{"a": {"x": 1}}', {"a": {str: {"n": int}}}, "'a' 'x'"),
    ],
)
def test_json_of_a_form(tmp_path, content, form, misfit):
    path = tmp_path / "a.json"
    path.write_text(content)
    if misfit is None:
        assert load_json(path, form) == read_json(path, form) == json.loads(content)
        return
    with pytest.raises(InputError) as error:
        load_json(path, form)
    assert str(error.value) == f"{path}: {misfit} is of the wrong type."
    assert read_json(path, form) is None


DEEP = 100_000


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "no valid JSON"),
        (b"", "no valid JSON"),
        (b'{"a": "\xff"}', "no valid JSON"),
        (b"[" * DEEP, "no valid JSON"),
        (b"[" * DEEP + b"]" * DEEP, "no valid JSON"),
        (b'{"a":' * DEEP + b"1" + b"}" * DEEP, "no valid JSON"),
        (b"[" * 40 + b"]" * 40, "more than 32 levels"),
        (b'{"a": ' + b"9" * 5000 + b"}", "no valid JSON"),
        (b"[" + b"1," * 3_000_000 + b"1]", "more than 3000000 values"),
        (b" " * 100_000_001, "more than 100000000 bytes"),
    ],
)
def test_json_that_is_refused(tmp_path, content, words):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=words) as error:
        load_json(path)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)
    assert read_json(path) is None


def test_json_that_is_no_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_json(tmp_path / "none")
    os.mkfifo(tmp_path / "fifo")
    for name in ("fifo", "."):
        with pytest.raises(InputError, match="not a file"):
            load_json(tmp_path / name)
    assert read_json(tmp_path / "none") is read_json(tmp_path) is None


def test_the_lines_of_a_list_are_not_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("PLACE", "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    save_audio(tmp_path / "elsewhere" / "a.wav", np.zeros(1000))
    listed = tmp_path / "list.txt"
    listed.write_text("$PLACE/a.wav\n~/a.wav\nelsewhere/a.wav\n")
    monkeypatch.setenv("HOME", str(tmp_path / "elsewhere"))
    clips = open_clips(Inputs(source_path=["~/../list.txt"]))
    first, second, third = clips.read(np.arange(3), 0)
    assert isinstance(first, AudioError) and isinstance(second, AudioError)
    assert "$PLACE/a.wav" in str(first) and "~/a.wav" in str(second)
    assert third.audio.shape == (1000,)


def test_what_a_person_types_is_expanded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PLACE", "elsewhere")
    save_audio("$PLACE/new/a.wav", np.zeros(10))
    assert (tmp_path / "elsewhere" / "new" / "a.wav").exists()


TF_CONFIGS = [
    "[" * 100_000, "[]", "{", '{"cluster": 5}', '{"cluster": {"worker": 5}}',
    '{"cluster": {"worker": [5]}}', '{"task": []}', '{"task": {"index": []}}',
    '{"task": {"index": "x"}}', '{"task": {"index": 1e400}}', '{"task": {"type": 1}}',
    '{"cluster": {"worker": ["a"]}, "task": {"index": 1}}', '{"cluster": {"ps": []}}',
]  # fmt: skip


@pytest.mark.parametrize("content", TF_CONFIGS)
def test_a_cluster_of_the_wrong_type(monkeypatch, content):
    from magenta_nsynth.training.workers import Cluster

    monkeypatch.setenv("TF_CONFIG", content)
    with pytest.raises(InputError, match="TF_CONFIG") as error:
        Cluster()
    assert "\n" not in str(error.value)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    """Opening one waits for a writer that may never come."""
    pipe = tmp_path / "pipe.wav"
    os.mkfifo(pipe)
    for read in (
        load_array,
        lambda path: load_array(path, in_memory=False),
        read_note_csv,
        read_list,
        lambda path: read_labels(path, []),
        load_json,
        load_audio,
    ):
        with pytest.raises(NSynthError, match="not a file"):
            read(str(pipe))
