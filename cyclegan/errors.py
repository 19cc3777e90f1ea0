"""The base of all errors that a user can mend."""


class UserError(Exception):
    """Its message is one line: the file or key, what was expected, what to do. Commands print it without traceback."""


def reason_of(error: Exception) -> str:
    """Its message's first line, or its kind: torch, Pillow and trackers have errors of many lines and of none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
