from . import async_effect, async_effect_control
