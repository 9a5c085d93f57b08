"""Score every mix of the experts on every reward."""
