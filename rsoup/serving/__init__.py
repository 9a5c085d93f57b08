"""Serve every trade-off at once: requests with weights of their own share each pass of one resident base.

``engine`` runs the batch, ``worker`` keeps it going in a thread, ``tradeoff`` reads what a request wants to be mixed,
``app`` speaks HTTP as OpenAI's API does, ``conversation`` is what a terminal shows.
"""
