from . import ir_async_ledger, ir_async_ledger_account, ir_async_ledger_rude
