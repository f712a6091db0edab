"""What the binaries do, as functions without flags."""
