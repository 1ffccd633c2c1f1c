"""The report of runs: one HTML file that needs no network and no server."""

from realrl.apps.report.command import main, make_parser

__all__ = ["main", "make_parser"]
