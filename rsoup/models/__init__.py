"""Language models: loading them, sampling from them, scoring several completions at the price of one prompt."""
