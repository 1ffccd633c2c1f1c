"""Checks of the machine and of the installation, each in a child process with a deadline."""

from realrl.apps.doctor.command import main, make_parser

__all__ = ["main", "make_parser"]
