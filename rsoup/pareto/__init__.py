"""Statistics of fronts: pure functions on arrays of gains, which are better when larger (see ``direction``)."""
