"""What a job can change in its thread. Where the process is not its own, that is all that can be set back."""
import threading


class ThreadState:
    """The attributes of the current thread."""
    owns_process = False  # whether jobs run in a process of their own

    def __init__(self):
        self._attributes = dict(vars(threading.current_thread()))

    def restore(self):
        """Undo what a job changed; called in the thread in which it ran.

        :return: the names of the parts that could not be restored: then the process must end
        :rtype: list[str]
        """
        attributes = vars(threading.current_thread())
        for name in attributes.keys() - self._attributes.keys():
            del attributes[name]
        # What Python itself keeps there changes by itself.
        attributes.update({name: value for name, value in self._attributes.items() if name == '_name' or not name.startswith('_')})
        return []
