"""The one error that bad input raises; the command line turns it into a sentence and exit code 2."""


class InputError(ValueError):
    """Something the user gave cannot be used. The message is one sentence that names the input and the remedy."""
