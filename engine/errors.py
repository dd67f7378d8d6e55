"""The kinds of exceptions, by their meaning for a job: one table for the runner, the worker and the log.

================  ==========================================================  ============================================
kind              examples                                                    the job
================  ==========================================================  ============================================
``LOST``          the connection ended, PostgreSQL restarts                   goes back into the queue, at no charge
``RACE``          serialization failure, deadlock, lock timeout               is tried again in place, then goes back,
                                                                              at no charge
``SERVER``        too many connections, disk full, an index was rebuilt       goes back with a growing delay, at no charge
``METHOD``        any other exception                                         has used an attempt: fails, or is tried again
================  ==========================================================  ============================================
"""

from __future__ import annotations

import enum
from typing import cast

import psycopg2
from psycopg2 import errors

from odoo.exceptions import ConcurrencyError
from odoo.sql_db import PoolError

RACE_CODES = {'40001', '40P01', '55P03'}  # serialization failure, deadlock, lock not available
# Shutdown, crash, starting up; session idle or slow.
LOST_CODES = {'57P01', '57P02', '57P03', '57P05', '25P03', '25P04'}
SERVER_CLASSES = {'53', '58'}  # insufficient resources, system error
# object in use; plan that uses a rebuilt index; damaged page; dropped database
SERVER_CODES = {'55006', 'XX000', 'XX001', 'XX002', '57P04'}

# The module was uninstalled, or is being upgraded to a version with other columns or functions.
UNINSTALLED = (errors.UndefinedTable, errors.UndefinedColumn, errors.UndefinedFunction)


class Kind(enum.Enum):
    LOST = 'lost connection'
    RACE = 'lost race'
    SERVER = "server's trouble"
    METHOD = "method's error"


def kind_of(exc: BaseException) -> Kind:
    """Return the kind of an exception.

    :param BaseException exc: the exception
    :rtype: Kind
    """
    # Not `isinstance`: it reads `__class__`, and the exception of a method may raise at that.
    if issubclass(type(exc), ConcurrencyError):
        return Kind.RACE
    if issubclass(type(exc), PoolError):
        return Kind.SERVER
    if not issubclass(type(exc), psycopg2.Error):
        return Kind.METHOD
    code = cast('psycopg2.Error', exc).pgcode
    if not code:
        # psycopg2 gives no code when a connection fails or is lost. The class distinguishes that from wrong use.
        return Kind.LOST if issubclass(type(exc), psycopg2.OperationalError) or _is_closed(exc) else Kind.METHOD
    if code in RACE_CODES:
        return Kind.RACE
    if code in LOST_CODES or code.startswith('08'):
        return Kind.LOST
    if code in SERVER_CODES or code[:2] in SERVER_CLASSES:
        return Kind.SERVER
    return Kind.METHOD


def _is_closed(exc: BaseException) -> bool:
    # psycopg2 raises a plain DatabaseError without a code when the server has vanished between two statements.
    text = str(exc)
    return 'closed' in text or type(exc) is psycopg2.DatabaseError
