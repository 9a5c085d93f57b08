"""Statistics of fronts: pure functions on arrays. Every reward is better when larger."""
