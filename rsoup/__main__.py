"""``python -m rsoup``."""

from rsoup.cli import main

main()
