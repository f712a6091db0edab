#!/usr/bin/env bash
# Made these files once, with ffmpeg 5.1, flac 1.4.2, lame 3.100, opus-tools 0.1.10,
# vorbis-tools 1.4.2 (Debian 12). decoded.npz has every eighth sample that that ffmpeg
# decodes of the lossy ones, as 16-bit integers; FLAC files decode to what was encoded.
set -euo pipefail
source=$(mktemp -d)
trap 'rm -r "$source"' EXIT
"${PYTHON:-python3}" - "$source" <<'PY'
import struct, sys
import numpy as np
time = np.arange(2400) / 16_000
sound = 0.4 * np.sin(2 * np.pi * 440 * time) * np.exp(-4 * time)
sound += 0.2 * np.sin(2 * np.pi * 3000 * time) * (time > 0.1)
for bits in (12, 16, 20, 32):
    num_bytes = -(-bits // 8)
    samples = np.round(sound * 2 ** (bits - 1)).astype("<i4")
    samples.tofile(f"{sys.argv[1]}/{bits}")
    raw = (samples << (8 * num_bytes - bits)).view(np.uint8).reshape(-1, 4)
    raw = raw[:, :num_bytes].tobytes()
    # The extensible form says how many of a sample's bits are used.
    fmt = struct.pack("<HHIIHHHHI", 0xFFFE, 1, 16000, 16000 * num_bytes, num_bytes,
                      8 * num_bytes, 22, bits, 4)
    fmt += bytes.fromhex("0100000000001000800000aa00389b71")
    chunks = b"WAVEfmt " + struct.pack("<I", 40) + fmt
    chunks += b"data" + struct.pack("<I", len(raw)) + raw
    with open(f"{sys.argv[1]}/{bits}.wav", "wb") as file:
        file.write(b"RIFF" + struct.pack("<I", len(chunks)) + chunks)
PY
wav=$source/16.wav
# A FLAC file that does not know its own length, nor its MD5.
ffmpeg -v error -t 0.1 -i "$wav" -f flac - | cat > stream.flac
for bits in 12 20 32; do
    flac --silent --force --no-padding -o "bits$bits.flac" "$source/$bits.wav"
done
lame --quiet -b 32 "$wav" cbr.mp3
lame --quiet -V 3 "$wav" vbr.mp3
lame --quiet -V 3 -t "$wav" vbr_without_xing.mp3
lame --quiet -b 32 -t --add-id3v2 --tt Title --ta Artist "$wav" tagged.mp3
ffmpeg -v error -y -i "$wav" -c:a libmp3lame -b:a 32k mp3_in.wav
ffmpeg -v error -y -i "$wav" -c:a aac -b:a 32k aac.m4a
opusenc --quiet --bitrate 24 "$wav" opusenc.opus
oggenc --quiet -q 0 -o oggenc.oga "$wav"
"${PYTHON:-python3}" - <<'PY'
import subprocess
import numpy as np
decoded = {}
for name in ("cbr.mp3", "vbr.mp3", "vbr_without_xing.mp3", "tagged.mp3", "mp3_in.wav",
             "aac.m4a", "opusenc.opus", "oggenc.oga"):
    words = ["ffmpeg", "-v", "error", "-i", name, "-f", "f32le", "-"]
    raw = subprocess.run(words, check=True, capture_output=True).stdout
    samples = np.frombuffer(raw, "<f4")
    decoded[name] = np.round(samples[::8] * 32768).astype(np.int16)
    decoded[f"{name}: length"] = np.array(len(samples))
np.savez_compressed("decoded.npz", **decoded)
PY
