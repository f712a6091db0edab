"""Pitches from the names of sounds: where they are meant, and where not."""

import subprocess
import sys

import pytest

from magenta_nsynth.notes.naming import (
    NameRules,
    labels_from_names,
    pitch_number,
)


def pitches(*stems, folder="sounds", **rules):
    places = [(tuple(folder.split("/")), stem) for stem in stems]
    return [
        labels.fields["pitch"]
        for labels in labels_from_names(places, NameRules(**rules))
    ]


def test_it_does_without_tensorflow():
    code = (
        "import sys, magenta_nsynth.notes.naming; sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("text", "pitch"),
    [
        ("C4", 60), ("piano_C4", 60), ("F#3", 54), ("Bb2", 46), ("bb2", 46),
        ("c#-1", 1), ("C-1 soft", 0), ("G9", 127), ("x-A0-take2", 21), ("B♭3", 58),
        ("midi60", 60), ("x_MIDI_060", 60), ("pitch-61 C#4", 61), ("Cb4", 59),
        ("C4 to C4", 60), ("Fs4", 66), ("As4", 70), ("ds3", 51), ("A0v1", 21),
        ("take2", -1), ("C4 to G4", -1), ("A9", -1), ("midi128", -1), ("C", -1),
        ("060", -1), ("note060", -1), ("Face4", -1), ("C42", -1), ("H3", -1), ("", -1),
        ("Es4", -1), ("Bs4", -1), ("éC4", -1), ("C4vox", -1), ("C10", -1),
    ],
)  # fmt: skip
def test_the_pitch_that_a_text_names(text, pitch):
    assert pitch_number(text) == pitch


@pytest.mark.parametrize(
    ("text", "middle_c", "pitch"),
    [
        ("C3", "C3", 60), ("C5", "C5", 60), ("C-2", "C3", 0), ("A-1", "C3", 21),
        ("G8", "C3", 127), ("G10", "C5", 127), ("C0", "C5", 0), ("C-1", "C5", -1),
        ("midi60", "C3", 60),
    ],
)  # fmt: skip
def test_middle_c(text, middle_c, pitch):
    assert pitch_number(text, middle_c) == pitch
    if pitch:
        assert pitches(text, middle_c=middle_c) == [pitch]


@pytest.mark.parametrize(
    ("stem", "pitch"),
    [
        # Models and other things that look like notes.
        ("Hammond B3", -1), ("hammond-b3", -1), ("Hammond Organ B3 loud", -1),
        ("B3 organ", -1), ("C3_Hammond", -1), ("Yamaha_C7_soft", -1), ("Yamaha C7", -1),
        ("Yamaha Grand Piano C7", -1), ("C7 grand", -1), ("Nord C2 organ", -1),
        ("Korg M1", -1), ("E-mu E4", -1), ("Zoom F3 take", -1), ("DX7-E.Piano 1", -1),
        ("Bb clarinet", -1), ("chord_C7", -1), ("take A-1", -1), ("kick_01", -1),
        ("guitar_64", -1), ("64", -1), ("loop_120", -1), ("Violin.arco.ff.C4B4", -1),
        ("recording-012-003", -1), ("recording-012-025", -1), ("take-060-101", -1),
        # Notes, as libraries name them.
        ("Hammond_B3_C4", 60), ("C4 Hammond_B3", 60), ("Yamaha DX7 C4", 60),
        ("Korg M1 A1", 33), ("TR-808 C2", 36), ("Rhodes_C4", 60), ("organ_B3", 59),
        ("violin_A4_15_forte_arco-normal", 69), ("violin_As4_1_piano_pizz", 70),
        ("1234__user__piano-c4", 60), ("Piano.ff.C4", 60), ("Flute.nonvib.ff.Bb3", 58),
        ("A0v1", 21), ("D#1v16", 27), ("VlnEns_susVib_A3_v1", 57), ("F#2_rr2", 42),
        ("1st-violins-sus-a#3-PB-loop", 58), ("Bass_Trombone - c#2", 37),
        ("bass_synthetic_033-022-050", 22), ("a-060-100", 60), ("n-126-075", 126),
        ("x_midi60_C3", 60),
    ],
)  # fmt: skip
def test_a_lone_name(stem, pitch):
    assert pitches(stem) == [pitch]


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        # A note that all share, while another differs, is a model.
        ({"Foo B3 C4": 60, "Foo B3 D4": 62, "Foo B3 soft": -1}, {}),
        ({"C4-G4": -1, "D4-A4": -1}, {}),
        # Few notes of a maker may be its models; more are notes.
        ({"Yamaha C3": -1, "Yamaha C5": -1, "Yamaha C7": -1, "x C3": 48}, {}),
        ({"Yamaha C2": 36, "Yamaha D2": 38, "Yamaha E2": 40, "Yamaha F2": 41,
          "Yamaha G2": 43}, {}),
        # Numbers: of one name several, all of them on a piano.
        ({"guitar_64": 64, "guitar_65": 65, "bass_40": -1, "kick_01": -1}, {}),
        ({"Guitar-064": 64, "Guitar-108": 108, "Hammond B3 60": 60,
          "Hammond B3 62": 62}, {}),
        ({"hit_20": -1, "hit_64": -1, "hat_60": -1, "hat_109": -1}, {}),
        ({"take_60": -1, "take_61": -1, "my bpm 90": -1, "my bpm 100": -1}, {}),
        ({"x_060_025": -1, "x_060_050": -1, "2024-03-21": -1, "2024-03-22": -1}, {}),
        ({"60": -1, "61": -1}, {}),
        # NSynth's form with instruments that NSynth hasn't.
        ({"my-060-100": 60, "my-021-025": 21, "rec-060-100": -1, "rec-060-101": -1},
         {}),
        # What the flag says.
        ({"guitar_64": 64, "kick_01": 1, "60": 60, "x_128": -1, "C4": 60,
          "rec-012-003": 12, "x_060_100": -1}, {"pitch_from_name": "midi"}),
        ({"Hammond B3": 59, "C7 grand": 96, "guitar_64": -1},
         {"pitch_from_name": "note"}),
        ({"C4": -1, "midi60": -1, "bass_synthetic_033-022-050": -1},
         {"pitch_from_name": "none"}),
    ],
)  # fmt: skip
def test_names_in_one_folder(names, wanted):
    assert dict(zip(names, pitches(*names, **wanted), strict=True)) == names


def test_a_model_in_the_folders_name():
    for folder in ("Hammond B3", "organs/Hammond B3/dry"):
        assert pitches("B3 soft", "B3 loud", folder=folder) == [-1, -1]
        assert pitches("B3 C4", "B3 D4", folder=folder) == [60, 62]
    assert pitches("E7", folder="guitar chords") == [-1]
    assert pitches("C4 soft", folder="C4") == [60]


def test_every_note_of_a_keyboard_is_read():
    for signs, start in (("#", ""), ("s", "Yamaha "), ("#", "Hammond B3 ")):
        scale = ["C", f"C{signs}", "D", f"D{signs}", "E", "F", f"F{signs}"]
        scale += ["G", f"G{signs}", "A", f"A{signs}", "B"]
        stems = [f"{start}{scale[n % 12]}{n // 12 - 1}" for n in range(128)]
        assert pitches(*stems) == list(range(128)), start


def test_what_else_a_name_says():
    [own, nsynth, other] = labels_from_names(
        [
            (("Synth-Lead", "moog"), "F#3"),
            (("bass",), "guitar_acoustic_007-060-100"),
            (("x", "recordings"), "recording-012-003"),
        ],
        NameRules(),
    )
    assert own.fields == {
        "instrument_str": "Synth-Lead_moog",
        "note_str": "Synth-Lead_moog_F#3",
        "instrument_family": 9,
        "pitch": 54,
    }
    assert (own.pitch_from, own.family_from) == ("note name", "folder")
    assert nsynth.fields == {
        "instrument_str": "guitar_acoustic_007",
        "note_str": "guitar_acoustic_007-060-100",
        "instrument_family": 3,
        "instrument_source": 0,
        "pitch": 60,
        "velocity": 100,
    }
    assert (nsynth.pitch_from, nsynth.family_from) == ("NSynth's name",) * 2
    assert other.fields == {
        "instrument_str": "x_recordings",
        "note_str": "x_recordings_recording-012-003",
        "instrument_family": -1,
        "pitch": -1,
    }
    assert (other.pitch_from, other.family_from) == ("not known",) * 2
