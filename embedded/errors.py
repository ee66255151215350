"""Why an embedded part cannot serve.

The law: every text tells the operator what to do or shows what the child said.

EmbeddedError
├── EmbeddedInUse   another server of this directory runs them
├── StoreMissing    no store that would do is installed
└── ChildFailed     a child process died, or was not ready in time
"""


class EmbeddedError(Exception):
    """An embedded part cannot serve; the text is meant for the operator."""


class EmbeddedInUse(EmbeddedError):
    """Another server already runs the embedded parts of this directory."""


class StoreMissing(EmbeddedError):
    """No store is installed that could do what is asked of it."""


class ChildFailed(EmbeddedError):
    """A child process died at its start or was not ready in time; ends with its last words."""
