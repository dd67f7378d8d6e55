from . import async_web
