"""The one exception of this project that is meant for the user's eyes."""


class UserError(ValueError):
    """A mistake the user can mend: the message says what is wrong, where, and what to do.

    `train.py` prints the message alone, without a traceback, and exits with status 2.
    """
