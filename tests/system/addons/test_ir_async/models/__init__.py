from . import (
    async_effect,
    async_effect_control,
    async_effect_faults,
    async_effect_leaks,
    async_effect_pools,
    async_effect_raises,
    async_effect_script,
    ir_async,
)
