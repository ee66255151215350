"""How long each stage of a request may take, in seconds."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Patience:
    """Every deadline that is not a setting; the defaults are what the server runs with."""

    body: float = 10
    write: float = 15
    keep_alive: float = 10
    connect: float = 5
    silence: float = 60


DEFAULT = Patience()
