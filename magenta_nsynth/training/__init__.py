"""Training: schedule, steps, evaluation, and several devices or machines."""
