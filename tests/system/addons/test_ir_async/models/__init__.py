from . import test_async
