from . import ir_async_ledger
