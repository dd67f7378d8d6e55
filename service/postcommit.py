"""The hooks of a job after its commit, when one of them has failed."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from ..exceptions import JobInterrupted
from .failure import log_failed_hook

if TYPE_CHECKING:
    from odoo.tools.misc import Callbacks

    from .execution import Execution

_logger = logging.getLogger(__name__)

MAX_ADDED = 20  # hooks that failing hooks may add: one that adds itself again must not go on for ever


def run_others(hooks: Callbacks, execution: Execution, exc: BaseException) -> None:
    """Log the exception of a hook, and run the hooks behind it.

    :param odoo.tools.misc.Callbacks hooks: those that have not run
    :param Execution execution: the job
    :param BaseException exc: the exception
    :raises odoo.addons.ir_async.exceptions.JobInterrupted: when the worker ends
    """
    chances = len(hooks) + MAX_ADDED
    while True:
        if type(exc) is JobInterrupted:
            raise exc
        log_failed_hook(execution, exc)
        if not chances:
            _logger.error("Hooks of job %s add more hooks, and fail. %d are not run", execution.job, len(hooks))
            return
        chances -= 1
        try:
            hooks.run()
        except BaseException as another:  # noqa: BLE001 -- as any error of a method
            exc = another
        else:
            return
