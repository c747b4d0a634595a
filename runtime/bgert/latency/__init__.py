"""Single calls of one model, timed: one after another, by a clock, from a fresh process, and what energy they take."""
