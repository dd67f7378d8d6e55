from . import (
    test_call,
    test_encoding,
    test_js,
    test_run,
    test_transaction,
)
