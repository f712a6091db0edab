#!/usr/bin/env python3
"""Renders a training set of single notes from a General MIDI soundfont.

An example of making your own data: it renders every instrument's notes with fluidsynth
and writes 4 s WAV files at 16 kHz with NSynth's names for notes, which
nsynth_make_tfrecord turns into TFRecords. It requires the program fluidsynth and a
soundfont (on Debian: apt-get install fluidsynth fluid-soundfont-gm).

    python examples/render_notes.py --save_path=notes
    nsynth_make_tfrecord --source_path=notes/train --save_path=data/train
    nsynth_make_tfrecord --source_path=notes/heldout --save_path=data/heldout

One pitch of each instrument is held out, at every velocity. It differs between
programs, so that a network that always plays the same pitch scores next to nothing. The
adjacent pitches are in the training set, as they are and tuned a third of a semitone
down and up: from semitones alone, a network learns to play the nearest one it knows.
"""

import argparse
import concurrent.futures
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile

import numpy as np
from scipy.io import wavfile

from magenta_nsynth.audio import save_audio
from magenta_nsynth.audio.resample import resample

# Family -> source -> General MIDI programs, counted from 0. Only programs with a clear
# pitch: for others (organs with many stops, distorted guitars, bells, two saws a fifth
# apart), a pitch estimator finds a different pitch from the name's.
INSTRUMENTS = {
    "bass": {"acoustic": [32], "electronic": [33, 34], "synthetic": [39]},
    "brass": {"acoustic": [56, 57, 60], "synthetic": [63]},
    "flute": {"acoustic": [72, 73, 74, 79]},
    "guitar": {"acoustic": [24, 25], "electronic": [26, 28]},
    "keyboard": {"acoustic": [0, 6], "electronic": [4, 5]},
    "mallet": {"acoustic": [8, 11, 12]},
    "organ": {"acoustic": [19, 20, 22]},
    "reed": {"acoustic": [64, 66, 68, 71]},
    "string": {"acoustic": [40, 41, 42, 45]},
    "synth_lead": {"synthetic": [80, 82, 87]},
    "vocal": {"acoustic": [53], "synthetic": [54]},
}
PITCHES = range(47, 74)
VELOCITIES = (75, 100)
HELD_SECONDS, SECONDS, GAP_SECONDS = 3, 4, 1
RENDER_RATE = 48_000  # Hz; a multiple of 16 kHz, so high that no overtone aliases
PEAK = 0.9  # of each instrument's loudest note
TICKS_PER_SECOND = 960
# Added to an instrument's number: how many semitones its notes are tuned up.
# Held-out notes are not retuned.
TUNINGS = {0: 0.0, 200: -1 / 3, 400: 1 / 3}
BEND_RANGE = 2  # semitones that the largest pitch bend moves a note


def main() -> None:
    """Parses the arguments and renders all instruments, one per core at a time."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save_path", required=True, type=pathlib.Path)
    parser.add_argument("--soundfont", default="/usr/share/sounds/sf2/FluidR3_GM.sf2")
    options = parser.parse_args()
    if shutil.which("fluidsynth") is None:
        sys.exit("fluidsynth is not installed (Debian: apt-get install fluidsynth).")
    if not os.path.isfile(options.soundfont):
        sys.exit(f"{options.soundfont}: no such soundfont; set --soundfont.")
    jobs = [
        (family, source, program, tuning)
        for family, sources in INSTRUMENTS.items()
        for source, programs in sources.items()
        for program in programs
        for tuning in TUNINGS
    ]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        futures = [
            pool.submit(render_instrument, *job, options.soundfont, options.save_path)
            for job in jobs
        ]
        for i, future in enumerate(futures, start=1):
            print(f"{i} of {len(jobs)} instruments: {future.result()}", flush=True)


def render_instrument(
    family: str,
    source: str,
    program: int,
    tuning: int,
    soundfont: str,
    folder: pathlib.Path,
) -> str:
    """Writes all notes of a program in one tuning; returns the instrument's name."""
    notes = [(pitch, velocity) for pitch in PITCHES for velocity in VELOCITIES]
    with tempfile.TemporaryDirectory() as temporary:
        midi, wav = f"{temporary}/notes.mid", f"{temporary}/notes.wav"
        pathlib.Path(midi).write_bytes(midi_file(program, notes, TUNINGS[tuning]))
        words = ["fluidsynth", "-ni", "-q", "-R", "0", "-C", "0", "-g", "0.5"]
        words += ["-r", str(RENDER_RATE), "-O", "float", "-F", wav, soundfont, midi]
        subprocess.run(words, check=True, capture_output=True)
        _, stereo = wavfile.read(wav)
    mono = stereo.mean(axis=1)
    clips = []
    for i in range(len(notes)):
        start = i * (SECONDS + GAP_SECONDS) * RENDER_RATE
        clip = mono[start : start + SECONDS * RENDER_RATE]
        clip = np.pad(clip, (0, SECONDS * RENDER_RATE - len(clip)))
        clips.append(resample(clip, RENDER_RATE))
    scale = PEAK / max(np.abs(clip).max() for clip in clips)
    name = f"{family}_{source}_{program + tuning:03}"
    for (pitch, velocity), clip in zip(notes, clips, strict=True):
        split = "heldout" if pitch == held_out_pitch(program) else "train"
        if split == "heldout" and tuning:
            continue
        path = folder / split / family / f"{name}-{pitch:03}-{velocity:03}.wav"
        save_audio(path, clip * scale, bit_depth=16)
    return name


def held_out_pitch(program: int) -> int:
    """The pitch, 48 to 72, of a program's held-out notes."""
    return 48 + 7 * program % 25


def midi_file(
    program: int, notes: list[tuple[int, int]], semitones: float = 0.0
) -> bytes:
    """Returns a MIDI file that plays one note after the other on one channel.

    Each note is held for HELD_SECONDS and cut off at SECONDS. The next one follows
    after a silent gap.

    Args:
      program: the General MIDI program, from 0.
      notes: (pitch, velocity) pairs, both from 0 to 127.
      semitones: how far all notes are tuned up, at least -2 and less than 2.
    """
    bend = round(8192 * (1 + semitones / BEND_RANGE))
    # (seconds to wait, message)
    events = [
        (0, bytes([0xC0, program])),
        (0, bytes([0xE0, bend & 127, bend >> 7])),
    ]
    wait = 0
    for pitch, velocity in notes:
        events.append((wait, bytes([0x90, pitch, velocity])))
        events.append((HELD_SECONDS, bytes([0x80, pitch, 0])))
        events.append((SECONDS - HELD_SECONDS, bytes([0xB0, 120, 0])))  # sound off
        wait = GAP_SECONDS
    events.append((wait, b"\xff\x2f\x00"))  # the end
    track = b"".join(
        variable_length(seconds * TICKS_PER_SECOND) + message
        for seconds, message in events
    )
    # A quarter note lasts half a second by default.
    header = struct.pack(">4sIHHH", b"MThd", 6, 0, 1, TICKS_PER_SECOND // 2)
    return header + struct.pack(">4sI", b"MTrk", len(track)) + track


def variable_length(number: int) -> bytes:
    """Encodes a number as MIDI files do: 7 bits per byte, the last byte below 128."""
    digits = [number & 127]
    while number := number >> 7:
        digits.append(number & 127 | 128)
    return bytes(reversed(digits))


if __name__ == "__main__":
    main()
