from . import async_effect
