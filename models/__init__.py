from . import (
    ir_async,
    ir_async_channel,
    ir_async_client,
    ir_async_cron,
    ir_async_progress,
    ir_async_stop,
    ir_async_worker,
    ir_async_worker_client,
    ir_http,
    res_users,
)
