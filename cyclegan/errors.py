"""The base of all errors that a user can mend."""


class UserError(Exception):
    """Its message is one line: the file or key, what was expected, what to do. Commands print it without traceback."""
