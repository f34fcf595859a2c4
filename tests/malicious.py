"""An object whose pickle runs a command."""

import os


class Malicious:
    def __reduce__(self):
        return os.system, ("touch was_here",)
