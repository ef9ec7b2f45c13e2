"""Failures of editing a model of one's own, beside those of the library."""

from __future__ import annotations

from pipeline.errors import ErrataError


class GuardError(ErrataError):
    """An edit that would cost the model more than its guard allows."""


class JournalError(ErrataError):
    """A journal of another model, or a number that it does not hold."""


class ChangedError(JournalError):
    """Edits in force that another process changed while one was being made."""


class PortError(ErrataError):
    """An address that a page cannot be served on."""
