"""A preference study: a page that asks people, and what their answers say."""

from __future__ import annotations

from cyclegan.errors import UserError

FORMAT = 1  # of the key and of the files of answers


class SurveyError(UserError, ValueError):
    """Pictures that make no survey, or answers that do not belong to one; the message names the file."""
