"""Turn measured points into a decision: statistics, pictures and one page to play with."""

from rsoup.report.make import make_report
from rsoup.report.options import Options
from rsoup.report.schema import Report

__all__ = ["Options", "Report", "make_report"]
