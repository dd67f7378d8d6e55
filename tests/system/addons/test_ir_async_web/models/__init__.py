from . import test_async_web
