"""Pure maths: advantages, losses, KL, normalisation, schedules."""
