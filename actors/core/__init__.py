"""Pure scheduling logic: no I/O, no clock, no randomness. Time is an argument, in integer milliseconds."""
