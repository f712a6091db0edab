#!/bin/bash
# Makes the outputs of an earlier version that lie here. README.md says what they are.
#
#   PYTHON=python make.sh CHECKOUT
#
# CHECKOUT is the working tree of that version. A later one never makes them anew.
set -euo pipefail
cd "$(dirname "$0")"
before=$(realpath "$1")
export PYTHONPATH=$before PYTHONDONTWRITEBYTECODE=1
python=${PYTHON:-python3}
wavenet=--checkpoint_path=training/model.ckpt-3
baseline=--checkpoint_path=../baseline_tiny/model.ckpt-3

nsynth() {
    local binary=$1
    shift
    "$python" "$before/bin/nsynth_$binary" --log=WARN "$@"
}

# The same, but the process ends without notice when it has written its n-th record.
killed_at_record() {
    local number=$1 binary=$2
    shift 2
    "$python" - "$number" "$before/bin/nsynth_$binary" "$@" <<'END' || test $? = 137
import os, runpy, sys
import tensorflow as tf

class Writer(tf.io.TFRecordWriter):
    left = int(sys.argv[1])

    def write(self, record):
        super().write(record)
        Writer.left -= 1
        if not Writer.left:
            self.flush()
            os._exit(137)

tf.io.TFRecordWriter = Writer
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
END
}

dated() { find "$@" -exec touch --date=2020-09-13T12:26:40Z {} +; }

rm -rf ./*/ notes.tfrecord

# What all the rest is made of: three sounds, and five notes in a TFRecord.
"$python" - <<'END'
import os, sys
sys.path.insert(0, os.path.join(os.environ["PYTHONPATH"], "tests"))
import numpy as np, recipe, tensorflow as tf
from scipy.io import wavfile
from magenta_nsynth.data.schema import Note, note_to_example, parse_note_str

os.makedirs("sounds")
names = ("cello_midi50", "flute_midi60", "organ_midi67")
for name, clip in zip(names, recipe.clips(1024, seed=7, batch=3)):
    wavfile.write(f"sounds/{name}.wav", 16000, np.rint(clip * 32767).astype(np.int16))
with tf.io.TFRecordWriter("notes.tfrecord") as writer:
    for i, clip in enumerate(recipe.clips(1024, seed=8, batch=5)):
        name = f"bass_acoustic_001-{40 + i:03}-100"
        writer.write(note_to_example(Note(name, clip, **parse_note_str(name))))
END
dated sounds notes.tfrecord

# A training after 3 steps, whose network makes the rest, and its losses on to step 6.
train="train --train_path=notes.tfrecord --batch_size=2 --crop_length=512 --seed=3"
train+=" --learning_rate=1e-2 --average_decay=0.9 --num_checkpoints=1"
train+=" --width=4 --skip_width=4 --num_layers=3 --num_stages=3 --ae_width=4"
train+=" --ae_num_layers=2 --ae_num_stages=2 --ae_bottleneck_width=4"
nsynth $train --logdir=training --num_steps=3
rm training/events*
cp -r training gone_on
nsynth $train --logdir=gone_on --num_steps=6 --save_summaries_secs=0
mkdir training_losses
mv gone_on/events* training_losses/events
rm -r gone_on

# Exports. The half-made one lacks what one of three workers was to make.
export="export_embeddings --source_path=notes.tfrecord $wavenet"
export+=" --notes_per_shard=2 --batch_size=2"
nsynth $export --save_path=export
nsynth $export --save_path=export_tfrecord --format=tfrecord
for worker in 0 2; do
    nsynth $export --save_path=export_half --num_shards=3 --shard_index=$worker
done

# TFRecords, whole, and killed amid the second of three files.
make="make_tfrecord --source_path=sounds --num_shards=3 --note_seconds=0.032"
nsynth $make --save_path=records
killed_at_record 3 $make --save_path=records_half --num_threads=1

# JSON/WAV, whole, and as a kill leaves it: some sounds, no labels.
nsynth make_tfrecord --source_path=notes.tfrecord --save_path=jsonwav
cp -r jsonwav jsonwav_half
rm jsonwav_half/examples.json jsonwav_half/audio/*-04[24]-100.wav

# Mixes of embeddings, of codes of the baseline, and with sounds.
nsynth save_embeddings --source_path=sounds $wavenet --save_path=embeddings
nsynth save_embeddings --source_path=sounds $baseline --save_path=codes
pair() { echo "--source_path=$1/cello_midi50$2 --source_path=$1/flute_midi60$2"; }
nsynth interpolate --steps=3 $(pair embeddings _embeddings.npy) --save_path=mixes
nsynth interpolate --steps=3 $(pair codes _z.npy) --save_path=mixes_of_codes
nsynth interpolate --steps=3 $(pair sounds .wav) $wavenet --save_path=mixes_generated \
    --generate --sum --match_loudness --seed=1 --bit_depth=16

# Generated sounds beside figures, and a page.
figure="rainbowgram $wavenet --seed=1 --save_path=figure.png --dpi=50"
nsynth $figure --reconstructions --source_path=sounds --sounds_path=reconstructions
nsynth $figure --circle $(pair sounds .wav) --sounds_path=circle
rm figure.png
nsynth rainbowgram --source_path=sounds --html=page
