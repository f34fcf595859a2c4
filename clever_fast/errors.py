"""The one exception that a user's own input can cause."""


class UserError(ValueError):
    """Input that the user can mend. The message names the value and the way out, in one line.

    The command line prints it without a traceback and leaves with exit code 2.
    """
