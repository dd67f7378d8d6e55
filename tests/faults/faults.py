"""All faults."""

from .harm.conflicts import Conflicts
from .harm.connections import Connections
from .harm.databases import Databases
from .harm.disk import Disk
from .harm.hosts import Hosts
from .harm.locks import Locks
from .harm.modules import Modules
from .harm.postgres import Postgres
from .harm.processes import Processes
from .harm.upkeep import Upkeep
from .harm.users import Users
from .injector import Injector

GROUPS = (Processes, Connections, Postgres, Conflicts, Locks, Upkeep, Modules, Disk, Users, Databases, Hosts)


class Faults(*GROUPS, Injector):
    """Each fault is a method; its docstring is what the report says."""

    # A fault that takes a restart is rarer: it hides the others.
    WEIGHTS = {name: weight for group in GROUPS for name, weight in group.WEIGHTS.items()}
