from .hooks import fail
