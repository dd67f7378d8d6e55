from . import (
    ir_async,
    ir_async_worker,
    res_users,
)
