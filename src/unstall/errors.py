"""The one exception that means: the user can mend this."""


class UsageError(ValueError):
    """Something a user can get wrong.

    The message is one line that names the argument, its value and the remedy. The command line prints it
    and exits with code 2, without a traceback.
    """
