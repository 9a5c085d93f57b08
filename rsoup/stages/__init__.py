"""The stages of runs: what there is to do, in which order, and who does it."""
