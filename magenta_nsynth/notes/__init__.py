"""Notes: labels of sounds, opening sounds from any kind of path, JSON/WAV."""
