from . import (
    test_access,
    test_actions,
    test_bus,
    test_call,
    test_case,
    test_config,
    test_encoding,
    test_js,
    test_options,
    test_retention,
    test_run,
    test_transaction,
)
