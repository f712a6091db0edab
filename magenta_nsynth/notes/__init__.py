"""Notes: what is known of sounds, opening them from any kind of path, JSON/WAV."""
